"""The event log as the rooms use it: write, append, read, watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument, LeaseLost, NotFound, StationmasterError
from stationmaster_server.events import store
from stationmaster_server.events.bus import Bus
from stationmaster_server.events.hub import Hub
from stationmaster_server.events.model import Batch, Event, NewEvent, Page
from stationmaster_server.events.reader import follow
from stationmaster_server.events.store import Cursor, encode_body
from stationmaster_server.events.writer import Writer
from stationmaster_server.resilience.pulse import Pulse

logger = logging.getLogger(__name__)

PAGE_SIZE = 256
CLOSE_GRACE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What an installation may change about the log."""

    keepalive: timedelta = timedelta(seconds=15)  # how long a reader may hear nothing
    look: timedelta = timedelta(seconds=1)  # how late a reader is at most when a notification was lost
    queue_size: int = 10_000  # writes that may wait for a flush
    give_up_after: timedelta = timedelta(seconds=30)  # of an outage, until producers are told


class EventLog:
    """Durable streams of events. Make it before the bus begins to listen; close it before the database."""

    def __init__(self, database: Database, bus: Bus, settings: LogSettings | None = None) -> None:
        self._database = database
        self._settings = settings or LogSettings()
        self._hub = Hub()
        self._writer = Writer(
            database,
            bus,
            self._hub,
            queue_size=self._settings.queue_size,
            give_up_after=self._settings.give_up_after,
        )
        self._tasks: list[asyncio.Task[None]] = []
        bus.listen(self._hub.wake)

    @property
    def pulse(self) -> Pulse:
        """Of flushes."""
        return self._writer.pulse

    async def start(self) -> None:
        """Begin to write and to look."""
        self._writer.start()
        self._tasks = [
            asyncio.create_task(self._catch_up(), name="event hub"),
            asyncio.create_task(self._tick(), name="event ticker"),
        ]

    async def close(self, grace: timedelta = CLOSE_GRACE) -> None:
        """Flush what producers wrote, for at most `grace`, then end every reader."""
        await self._writer.close(grace)
        self._hub.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def create_stream(self, tx: Transaction, organization_id: UUID, stream_id: UUID) -> None:
        """A stream without events."""
        await store.create_stream(tx, organization_id, stream_id)

    async def set_fence(self, tx: Transaction, organization_id: UUID, stream_id: UUID, fence: UUID | None) -> None:
        """Let `write` (and `append` with a fence) through only under `fence`; None: nobody. NotFound."""
        if not await store.set_fence(tx, organization_id, stream_id, fence):
            raise NotFound("stream", str(stream_id))

    async def append(
        self,
        tx: Transaction,
        organization_id: UUID,
        stream_id: UUID,
        events: Sequence[NewEvent],
        *,
        fence: UUID | None = None,
    ) -> list[Event]:
        """Write events in the caller's transaction; readers get them after its commit.

        LeaseLost when the stream's fence is not `fence` (None: any will do), NotFound when there is no such stream.
        """
        if not events:
            return []
        kinds = [event.kind for event in events]
        bodies = [encode_body(event.body) for event in events]
        written = await store.append(tx, organization_id, stream_id, fence, kinds, bodies)
        if written is None or written.at is None:
            if await store.exists(tx, organization_id, stream_id):
                raise LeaseLost(f"stream {stream_id} is no longer written under fence {fence}")
            raise NotFound("stream", str(stream_id))
        at = written.at
        appended = [
            Event(stream_id, sequence, event.kind, event.body, at)
            for sequence, event in enumerate(events, written.before + 1)
        ]
        tx.after_commit(lambda: self._committed(stream_id, appended))
        return appended

    async def hand_over(
        self, tx: Transaction, organization_id: UUID, first: Mapping[UUID, NewEvent], fence: UUID | None
    ) -> None:
        """Write an event to each of many streams, and `set_fence` of them all, in one statement.

        A stream that does not exist is left out.
        """
        kinds = [event.kind for event in first.values()]
        bodies = [encode_body(event.body) for event in first.values()]
        for stream_id, sequence, at in await store.hand_over(tx, organization_id, list(first), kinds, bodies, fence):
            event = first[stream_id]
            appended = [Event(stream_id, sequence, event.kind, event.body, at)]
            tx.after_commit(partial(self._committed, stream_id, appended))

    def _committed(self, stream_id: UUID, events: list[Event]) -> None:
        self._hub.publish(stream_id, events)
        self._writer.notify(stream_id)

    def write(self, organization_id: UUID, stream_id: UUID, event: NewEvent, *, fence: UUID) -> asyncio.Future[int]:
        """Queue an event for the next flush; the future has its sequence once it is durable.

        The future's errors: LeaseLost when the stream's fence is another; Unavailable when an outage outlasted the
        patience of the writer (then every write that waited has failed, so that no stream misses its middle).
        A producer that does not await each future awaits `room()` before each write, and its last future at the end;
        ResourceExhausted is for those that do neither.
        """
        return self._writer.write(organization_id, stream_id, event, fence)

    def room(self) -> Awaitable[None]:
        """Wait while the writer's queue is full."""
        return self._writer.room()

    async def read(self, tenant: Tenant, stream_id: UUID, after: int, limit: int) -> list[Event]:
        """The next events after a cursor. A cursor in a compacted range resumes at what is stored after it."""
        page = await self._page(tenant, stream_id, after, limit)
        return page.events

    async def bodies(
        self, tx: Transaction, organization_id: UUID, stream_id: UUID, after: int, since: datetime, kind: str
    ) -> list[dict[str, Any]]:
        """The bodies of the events of one kind after a cursor, in their order; `since`: none of them is older."""
        return await store.bodies(tx, organization_id, stream_id, after, since, kind)

    def watch(self, tenant: Tenant, stream_id: UUID, after: int) -> AsyncGenerator[Batch, None]:
        """Every event after a cursor: first from the log, then live, without a gap or a repeat; ends with the server.

        A batch without events is a keepalive. NotFound; InvalidArgument for a cursor past the stream's end;
        Unavailable when the log cannot be read. Close the generator (`contextlib.aclosing`) when done with it.
        """

        async def read(position: int) -> Page:
            return await self._page(tenant, stream_id, position, PAGE_SIZE)

        return follow(self._hub, tenant.organization_id, stream_id, after, read)

    async def compact(
        self, tx: Transaction, organization_id: UUID, stream_id: UUID, first: int, last: int, kinds: Sequence[str]
    ) -> int:
        """Delete events of `kinds` (the deltas) from `first` to `last`, for which a later message stands.

        Sequences stay as they are. Returns how many were deleted.
        """
        return await store.compact(tx, organization_id, stream_id, first, last, kinds)

    async def _page(self, tenant: Tenant, stream_id: UUID, after: int, limit: int) -> Page:
        async with self._database.tenant(tenant, read=True) as tx:
            pages = await store.read(tx, [Cursor(tenant.organization_id, stream_id, after)], limit)
        page = pages.get(stream_id)
        if page is None:
            raise NotFound("stream", str(stream_id))
        if page.covered < after:
            raise InvalidArgument.field("after_sequence", f"the stream ends at {page.covered}")
        return page

    async def _catch_up(self) -> None:
        """Read what other servers wrote, once for all readers of a stream and for all streams."""
        while True:
            await self._hub.work.wait()
            cursors = self._hub.take_behind()
            if not cursors:
                continue
            try:
                async with self._database.system(autocommit=True) as tx:
                    pages = await store.read(tx, cursors, PAGE_SIZE)
            except StationmasterError as error:
                logger.warning("the event log could not be read, the next look will: %s", error)
                continue
            except Exception:
                logger.exception("the event log could not be read, the next look will")
                continue
            for cursor in cursors:
                if cursor.stream_id in pages:
                    self._hub.deliver(cursor, pages[cursor.stream_id])

    async def _tick(self) -> None:
        """The periodic look for what no notification told of, and the keepalives: one task for all readers."""
        while True:
            await asyncio.sleep(self._settings.look.total_seconds())
            cursors = self._hub.cursors()
            if cursors:
                await _quietly(self._look(cursors))
            self._hub.keep_alive(self._settings.keepalive.total_seconds())

    async def _look(self, cursors: list[Cursor]) -> None:
        async with self._database.system(autocommit=True) as tx:
            self._hub.wake(await store.moved(tx, cursors))


async def _quietly(look: Awaitable[None]) -> None:
    try:
        await look
    except StationmasterError as error:
        logger.warning("the streams could not be looked at: %s", error)
    except Exception:
        logger.exception("the streams could not be looked at")
