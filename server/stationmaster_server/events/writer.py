"""The group-commit writer: without a timer, it flushes what queued while its last flush was in flight."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import asyncpg

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import (
    Aborted,
    DeadlineExceeded,
    LeaseLost,
    Reason,
    ResourceExhausted,
    StationmasterError,
    Unavailable,
)
from stationmaster_server.events import store
from stationmaster_server.events.bus import CHANNEL, Bus
from stationmaster_server.events.model import Event, NewEvent
from stationmaster_server.events.pending import Flush, Pending, StreamWrites
from stationmaster_server.resilience.pulse import Pulse

logger = logging.getLogger(__name__)

# Whether the statement was committed is not known after these; the flush is repeated under its id.
# (The driver's internal error is what a backend that died between two statements looks like, now and then.)
_UNCERTAIN = (Unavailable, DeadlineExceeded, Aborted, asyncpg.InternalClientError)
# A stream whose row somebody's transaction holds is tried again after a pause that doubles.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1
_OUTAGE_PAUSE, _LONGEST_OUTAGE_PAUSE = 0.05, 1.0
# Past this many times its bound the queue refuses whoever does not wait for `room`.
_HARD_FACTOR = 4


class FanOut(Protocol):
    """Where committed events go within the process."""

    def watches(self, stream_id: UUID) -> bool:
        """Whether anybody here reads the stream."""
        ...

    def publish(self, stream_id: UUID, events: list[Event]) -> None:
        """Committed events of one stream; none: something was written, read the log."""
        ...


class Writer:
    """One for each process. Every flush is one statement; each producer learns what became of its own write."""

    def __init__(
        self, database: Database, bus: Bus, fan_out: FanOut, *, queue_size: int, give_up_after: timedelta
    ) -> None:
        self._database = database
        self._bus = bus
        self._fan_out = fan_out
        self._queue_size = queue_size
        self._give_up_after = give_up_after.total_seconds()
        self._pending = Pending()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self.pulse = Pulse()
        """Of flushes."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to flush."""
        self._task = asyncio.create_task(self._run(), name="event writer")

    async def close(self, grace: timedelta) -> None:
        """Flush what waits, for at most `grace`, then stop; a write from now on is refused."""
        self._closing = True
        self._wake.set()
        if self._task is None:
            return
        await asyncio.wait([self._task], timeout=grace.total_seconds())
        if not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._give_up(self._pending.take(), "the server is stopping")

    def write(self, organization_id: UUID, stream_id: UUID, event: NewEvent, fence: UUID) -> asyncio.Future[int]:
        """Queue an event; the future has its sequence once it is durable."""
        if self._closing:
            raise Unavailable(Reason.SERVER_STOPPING, "the server is stopping")
        if self._pending.size >= self._queue_size * _HARD_FACTOR:
            raise ResourceExhausted(
                Reason.SERVER_OVERLOADED, "too many events wait to be written", retry_after=timedelta(seconds=1)
            )
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pending.add(organization_id, stream_id, fence, event, future)
        self._wake.set()
        if self._pending.size >= self._queue_size:
            self._room.clear()
        return future

    def notify(self, stream_id: UUID) -> None:
        """Tell other servers of a stream with the next flush, at once when idle."""
        self._pending.notify(stream_id)
        self._wake.set()

    async def room(self) -> None:
        """Wait while the queue is full; returns at once otherwise."""
        if not self._room.is_set():
            await self._room.wait()

    async def _run(self) -> None:
        while not (self._closing and not self._pending):
            await self._wake.wait()
            self._wake.clear()
            pause = _FIRST_PAUSE
            while self._pending:
                flush = self._pending.take()
                locked = await self._write_out(flush)
                self._pending.put_back(locked)
                if self._pending.size < self._queue_size:
                    self._room.set()
                if locked:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                else:
                    pause = _FIRST_PAUSE

    async def _write_out(self, flush: Flush) -> list[StreamWrites]:
        """Write a flush, whatever happens; returns the groups whose stream was locked by somebody else."""
        try:
            locked = await self._through_outages(flush)
        except _UNCERTAIN as error:
            self._give_up(flush, str(error))
            return []
        except asyncio.CancelledError:
            self._give_up(flush, "the server is stopping")
            raise
        except Exception:
            # Whatever it is, the writer lives on: what the database refuses for its content, or a bug of ours.
            logger.exception("a flush of events was refused")
            return await self._without_the_culprit(flush)
        await self._bus.publish(flush.streams)
        return locked

    async def _through_outages(self, flush: Flush) -> list[StreamWrites]:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._give_up_after
        pause = _OUTAGE_PAUSE
        while True:
            try:
                with self.pulse.round():
                    locked = await self._commit(flush)
                if not (locked and flush.uncertain):
                    return locked
                # The first try may still be running in a backend that has not noticed our absence: the same id.
                flush.groups = locked
            except _UNCERTAIN as error:
                logger.warning("a flush of events failed and is repeated: %s", error)
                flush.uncertain = True
                if loop.time() + pause > until:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_OUTAGE_PAUSE)

    async def _commit(self, flush: Flush) -> list[StreamWrites]:
        payloads = self._bus.payloads(flush.streams)
        if not flush.groups:
            async with self._database.system(autocommit=True) as tx:
                await store.notify(tx, CHANNEL, payloads)
            return []
        groups = [group.group() for group in flush.groups]
        async with self._database.system(autocommit=True) as tx:
            written = await store.flush(tx, flush.id, groups, CHANNEL, payloads)
            held = await store.fences_held(tx, groups) if None in written else []
        locked = []
        for index, (group, result) in enumerate(zip(flush.groups, written, strict=True)):
            if result is not None:
                if self._fan_out.watches(group.stream_id):
                    self._fan_out.publish(group.stream_id, group.events(result))
                group.succeed(result)
            elif held[index]:
                locked.append(group)
            else:
                group.fail(_lease_lost(group))
        return locked

    async def _without_the_culprit(self, flush: Flush) -> list[StreamWrites]:
        """Halve a flush that was refused until only the culprit fails."""
        groups = [group for group in flush.groups if not group.told]
        if len(groups) <= 1:
            for group in groups:
                group.fail(lambda: StationmasterError(Reason.INTERNAL, "the event could not be stored"))
            return []
        middle = len(groups) // 2
        halves = (groups[:middle], groups[middle:])
        return [group for half in halves for group in await self._write_out(flush.part(half))]

    def _give_up(self, flush: Flush, why: str) -> None:
        """Fail the flush and what queued behind it: were that written later, a stream would miss its middle."""
        logger.error("events are given up, the database did not take them in time: %s", why)
        for group in [*flush.groups, *self._pending.take().groups]:
            group.fail(lambda: Unavailable(Reason.DATABASE_UNAVAILABLE, why))


def _lease_lost(group: StreamWrites) -> Callable[[], LeaseLost]:
    return lambda: LeaseLost(f"stream {group.stream_id} is no longer written under fence {group.fence}")
