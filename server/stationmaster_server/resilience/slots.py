"""Slots of a pool: who comes when all are taken waits in a queue that is bounded, for a time that is bounded.

Organizations take turns: one that asks for much waits for itself.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.errors import Reason, ResourceExhausted, Unavailable
from stationmaster_server.resilience.whose import WHOSE

_RETRY_AFTER = timedelta(seconds=5)


class Slots:
    """So many at once; of one organization first come, first served, and among organizations in turn.

    One organization has half of the places in the queue at most.
    """

    def __init__(self, what: str, count: int, max_waiting: int, max_wait: timedelta) -> None:
        self._what = what
        self._free = self._count = count
        self._max_waiting = max_waiting
        self._max_wait = max_wait
        self._most_of_one = max(max_waiting // 2, 1)
        self._queues: OrderedDict[UUID | None, deque[asyncio.Future[None]]] = OrderedDict()
        self._closed = False
        self._all_free = asyncio.Event()
        self._all_free.set()
        self.refused = 0
        """How many could not be given."""

    @property
    def taken(self) -> int:
        """Slots that are taken."""
        return self._count - self._free

    @property
    def waiting(self) -> int:
        """Who waits for one."""
        return sum(map(len, self._queues.values()))

    async def take(self, name: str) -> None:
        """Take a slot, which must be given back, for a call of this name.

        Raises ResourceExhausted(SERVER_OVERLOADED), and Unavailable(SERVER_STOPPING) once closed.
        """
        if self._closed:
            raise stopping(name)
        if self._free:
            self._free -= 1
            self._all_free.clear()
            return
        if self.waiting >= self._max_waiting:
            raise self._no_slot(f"{name} was refused: {self.waiting} calls wait for {self._what} already")
        whose = WHOSE.get()
        if whose is not None and len(self._queues.get(whose, ())) >= self._most_of_one:
            text = f"{name} was refused: {self._most_of_one} calls of the organization wait for {self._what} already"
            raise self._no_slot(text)
        await self._wait(name, whose)

    async def _wait(self, name: str, whose: UUID | None) -> None:
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(whose, deque()).append(slot)
        given = False
        try:
            await asyncio.wait([slot], timeout=self._max_wait.total_seconds())
            given = slot.done()
        finally:
            if not slot.done():
                self._leave(whose, slot)
            elif not given and slot.exception() is None:
                self.give()  # it came together with a cancellation
        if not given:
            raise self._no_slot(f"{name} waited {self._max_wait.total_seconds():g} s for {self._what}: all are busy")
        if slot.exception() is not None:
            raise stopping(name)

    def _no_slot(self, text: str) -> ResourceExhausted:
        self.refused += 1
        return ResourceExhausted(Reason.SERVER_OVERLOADED, f"{text}; try again later", retry_after=_RETRY_AFTER)

    def give(self) -> None:
        """Give a slot back, to whoever waits longest of the organization whose turn it is."""
        if self._queues:
            whose, queue = next(iter(self._queues.items()))
            slot = queue[0]
            self._leave(whose, slot)
            if queue:
                self._queues.move_to_end(whose)
            slot.set_result(None)
            return
        self._free += 1
        if self._free == self._count:
            self._all_free.set()

    def _leave(self, whose: UUID | None, slot: asyncio.Future[None]) -> None:
        queue = self._queues[whose]
        queue.remove(slot)
        if not queue:
            del self._queues[whose]

    def close(self) -> None:
        """Give no more slots to new calls; those that wait already still get theirs."""
        self._closed = True

    def send_away(self) -> None:
        """Let nobody wait any longer."""
        queues, self._queues = self._queues, OrderedDict()
        for slot in itertools.chain(*queues.values()):
            slot.set_exception(stopping("the call"))

    async def until_free(self, limit: timedelta) -> bool:
        """Wait until all slots are given back; False when they are not by then."""
        try:
            async with asyncio.timeout(limit.total_seconds()):
                await self._all_free.wait()
        except TimeoutError:
            return False
        return True


def stopping(name: str) -> Unavailable:
    """What a call is told that the stop of the server met."""
    return Unavailable(Reason.SERVER_STOPPING, f"{name} was not finished: the server is stopping; try again")


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool does now, and how the calls ended that it had since its start."""

    running: int
    waiting: int
    ended: Mapping[str, int]
    """By `done` (with a result or what the function raised), `timed_out`, `died`, `cancelled`, `refused`."""
    processes: int = 0

    @classmethod
    def of(cls, slots: Slots, ended: Counter[str], processes: int = 0) -> Load:
        """The load of a pool, from what it counts."""
        kinds = ("done", "timed_out", "died", "cancelled")
        return cls(
            slots.taken, slots.waiting, {kind: ended[kind] for kind in kinds} | {"refused": slots.refused}, processes
        )


def name_of(function: Callable[..., Any]) -> str:
    """A function's name for people."""
    return str(getattr(function, "__qualname__", None) or repr(function))
