"""What a target is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol

from stationmaster_server.tasks.sync.model import About, Cursor, Key, TaskState


class TargetAway(Exception):
    """A target cannot be read or written: what happened, where, and what to do."""


class TargetHeld(Exception):
    """Another process has a target open: it alone can tell what is in it."""


class Target(Protocol):
    """Somewhere that tasks are kept as well. One writes it at a time; every method may raise TargetAway."""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        ...

    @property
    def about(self) -> Collection[About]:
        """Which changes concern it; of states it gets no more than that."""
        ...

    async def open(self) -> bool:
        """Be ready; False: another process has it, and writes it."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...

    async def cursor(self) -> Cursor | None:
        """How far it is; None: it must be filled from nothing."""
        ...

    async def apply(self, states: Sequence[TaskState], cursor: Cursor) -> None:
        """Make tasks as they are now; what is not there of one goes. The cursor comes with all of it, or not at all."""
        ...

    async def reset(self, cursor: Cursor) -> None:
        """Begin from nothing, with this cursor: no contents are taken for true."""
        ...

    async def differing(self, states: Sequence[TaskState]) -> Sequence[Key]:
        """Those of these tasks of which it holds something else than it should."""
        ...

    def keys(self, at_once: int) -> AsyncIterator[Sequence[Key]]:
        """Every task of which it holds something, about so many at a time, in an order of its own, maybe repeatedly."""
        ...

    async def skipped(self) -> Mapping[Key, str]:
        """What it cannot hold as it is now, and why; it is not told as differing."""
        ...
