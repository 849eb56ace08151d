"""What a handler gets: the item that it runs, and what it hears and says meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import LeaseLost
from stationmaster_server.work.model import Outcome, WorkItem
from stationmaster_server.work.retry import Decision


class Run:
    """One attempt at an item under a lease.

    `cancelled` is set when somebody asked to cancel: return `Cancelled()` soon, or the handler is ended.
    `paused`: somebody holds the item back. `stopping` is set when the server stops: return `Released()` soon.
    """

    __slots__ = (
        "alive",
        "cancelled",
        "completing",
        "item",
        "lease_token",
        "lend",
        "lost",
        "missed",
        "paused",
        "progress",
        "renewed_at",
        "requeued",
        "settled",
        "stopping",
        "task",
        "then",
    )

    def __init__(self, item: WorkItem, stopping: asyncio.Event, now: float) -> None:
        if item.lease_token is None:
            raise ValueError("an item that is run has a lease")
        self.item = item
        self.lease_token: UUID = item.lease_token
        self.cancelled = asyncio.Event()
        self.paused = False
        self.stopping = stopping
        # The rest is the worker's.
        self.renewed_at = now
        self.progress: Mapping[str, Any] | None = None
        self.alive = False
        self.completing = False  # `complete` has written the end, which may not be committed yet
        self.missed = False  # the last heartbeat found no lease
        self.settled = False  # the end is committed
        self.lost = False  # somebody else has the item
        self.task: asyncio.Task[None] | None = None
        self.lend: Callable[[bool], None] = lambda lent: None  # whether the slot is for others
        # The handler's: called once the end of the attempt is committed.
        self.then: Callable[[], None] | None = None
        # The handler's: called in the transaction that queues the item again, so that what it writes is true with it.
        self.requeued: Callable[[Transaction, Decision], Awaitable[None]] | None = None

    @property
    def attempt(self) -> int:
        """1 for the first attempt."""
        return self.item.attempt

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, the handler takes no slot of its worker: for one that does nothing but wait for other work.

        Nothing bounds how many wait like that but their handlers. At the end it has its slot again, at once.
        """
        self.lend(True)
        try:
            yield
        finally:
            self.lend(False)

    def heartbeat(self, progress: Mapping[str, Any] | None = None) -> None:
        """Say that the handler is alive and, with `progress`, how far; carried out with the next beat, within a second.

        LeaseLost when the item is somebody else's: stop, write nothing.
        """
        if self.lost:
            raise LeaseLost(f"item {self.item.item_id} is run by somebody else")
        self.alive = True
        if progress is not None:
            self.progress = progress


class Handler(Protocol):
    """Runs the items of a kind. What it raises is a failed attempt; LeaseLost ends the run without a word."""

    async def __call__(self, run: Run) -> Outcome:
        """Run an item to an outcome; after `WorkQueue.complete` in a transaction of its own, return the same one."""
        ...
