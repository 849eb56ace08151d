"""The fan-out within a process: one channel for each watched stream, one subscriber for each reader."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

from stationmaster_server.errors import NotFound
from stationmaster_server.events.model import Event, Page
from stationmaster_server.events.store import Cursor

QUEUE_LIMIT = 256


class Chunk(NamedTuple):
    """All stored events of a stream from sequence `first` to `last`."""

    first: int
    events: list[Event]
    last: int


class Subscriber:
    """A reader's bounded queue. Past `QUEUE_LIMIT` events it is emptied and the reader has to read the log."""

    __slots__ = ("_chunks", "_size", "_waiter", "closed", "last_woken", "overflowed")

    def __init__(self, now: float) -> None:
        self._chunks: list[Chunk] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self.overflowed = False
        self.closed = False
        self.last_woken = now

    def restart(self) -> None:
        """Begin to queue again after an overflow; call before reading the log."""
        self.overflowed = False

    def put(self, chunk: Chunk, now: float) -> None:
        """Queue what was committed, or overflow."""
        if self.overflowed:
            return
        self._size += len(chunk.events)
        if self._size > QUEUE_LIMIT:
            self._chunks = []
            self._size = 0
            self.overflowed = True
        else:
            self._chunks.append(chunk)
        self.wake(now)

    def continues(self, position: int, newest: int | None) -> bool:
        """Whether queue and hub go on right after `position`, so that the log need not be read again."""
        if self.overflowed:
            return False
        if self._chunks:
            return self._chunks[0].first <= position + 1
        return newest is None or newest <= position

    def wake(self, now: float) -> None:
        """Let the reader look: something came, or a keepalive is due."""
        self.last_woken = now
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[Chunk]:
        """Everything queued, waiting for something; nothing at a keepalive, an overflow or the end."""
        if not self._chunks and not self.overflowed and not self.closed:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunks, self._chunks = self._chunks, []
        self._size = 0
        return chunks


class Channel:
    """A watched stream: the last sequence that its subscribers were given, None until one has read the log."""

    __slots__ = ("last", "organization_id", "stream_id", "subscribers")

    def __init__(self, organization_id: UUID, stream_id: UUID) -> None:
        self.organization_id = organization_id
        self.stream_id = stream_id
        self.last: int | None = None
        self.subscribers: set[Subscriber] = set()

    def deliver(self, chunk: Chunk, now: float) -> None:
        """Give all subscribers what comes after `last`; a repeat, or the repeated part of it, is ignored."""
        if self.last is None or chunk.last <= self.last:
            return
        if chunk.first <= self.last:
            events = [event for event in chunk.events if event.sequence > self.last]
            chunk = Chunk(self.last + 1, events, chunk.last)
        self.last = chunk.last
        for subscriber in self.subscribers:
            subscriber.put(chunk, now)


class Hub:
    """All channels of the process. `behind` names those whose newest events have to be read from the log."""

    def __init__(self) -> None:
        self._channels: dict[UUID, Channel] = {}
        self._loop = asyncio.get_running_loop()
        self.behind: set[UUID] = set()
        self.work = asyncio.Event()

    @contextmanager
    def subscribe(self, organization_id: UUID, stream_id: UUID) -> Iterator[tuple[Channel, Subscriber]]:
        """A subscriber for as long as the block lasts; the caller has seen that the stream is the organization's."""
        channel = self._channels.get(stream_id)
        if channel is None:
            channel = self._channels[stream_id] = Channel(organization_id, stream_id)
        elif channel.organization_id != organization_id:
            raise NotFound("stream", str(stream_id))
        subscriber = Subscriber(self._loop.time())
        channel.subscribers.add(subscriber)
        try:
            yield channel, subscriber
        finally:
            channel.subscribers.discard(subscriber)
            if not channel.subscribers:
                self._channels.pop(stream_id, None)

    def watches(self, stream_id: UUID) -> bool:
        """Whether anybody here reads the stream."""
        return stream_id in self._channels

    def publish(self, stream_id: UUID, events: list[Event]) -> None:
        """Committed events; when some before them are missing here, or none are given, the log is read."""
        channel = self._channels.get(stream_id)
        if channel is None:
            return
        if not events or channel.last is None or events[0].sequence > channel.last + 1:
            self.wake([stream_id])
        else:
            channel.deliver(Chunk(events[0].sequence, events, events[-1].sequence), self._loop.time())

    def wake(self, streams: Iterable[UUID] | None) -> None:
        """Have the log read for those of the streams (None: all) that are watched here."""
        watched = set(self._channels) if streams is None else self._channels.keys() & streams
        if watched:
            self.behind |= watched
            self.work.set()

    def know(self, channel: Channel, covered: int) -> None:
        """A reader read the log up to `covered`: where the channel begins, if it has not begun."""
        if channel.last is None:
            channel.last = covered
            if channel.stream_id in self.behind:
                self.work.set()

    def take_behind(self) -> list[Cursor]:
        """The cursors to read from; a channel that has not begun stays behind until it has."""
        self.work.clear()
        cursors = [
            Cursor(channel.organization_id, stream_id, channel.last)
            for stream_id in self.behind
            if (channel := self._channels.get(stream_id)) is not None and channel.last is not None
        ]
        self.behind = {stream for stream in self.behind if self._unbegun(stream)}
        return cursors

    def _unbegun(self, stream_id: UUID) -> bool:
        channel = self._channels.get(stream_id)
        return channel is not None and channel.last is None

    def deliver(self, cursor: Cursor, page: Page) -> None:
        """What the log has after a cursor of `take_behind`."""
        channel = self._channels.get(cursor.stream_id)
        if channel is not None:
            channel.deliver(Chunk(cursor.sequence + 1, page.events, page.covered), self._loop.time())
            if page.full:
                self.wake([cursor.stream_id])

    def cursors(self) -> list[Cursor]:
        """Where every channel stands, for the periodic look."""
        return [
            Cursor(channel.organization_id, channel.stream_id, channel.last)
            for channel in self._channels.values()
            if channel.last is not None
        ]

    def keep_alive(self, interval: float) -> None:
        """Wake the readers that have had nothing for `interval` seconds."""
        now = self._loop.time()
        due = now - interval
        for channel in self._channels.values():
            for subscriber in channel.subscribers:
                if subscriber.last_woken <= due:
                    subscriber.wake(now)

    def close(self) -> None:
        """End every reader."""
        for channel in self._channels.values():
            for subscriber in channel.subscribers:
                subscriber.closed = True
                subscriber.wake(self._loop.time())
