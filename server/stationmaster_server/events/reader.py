"""One reader: catching up from the log, then live from the hub, and back whenever it is too slow."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from uuid import UUID

from stationmaster_server.events.hub import Chunk, Hub
from stationmaster_server.events.model import Batch, Event, Page

ReadPage = Callable[[int], Awaitable[Page]]


async def follow(
    hub: Hub, organization_id: UUID, stream_id: UUID, position: int, read: ReadPage
) -> AsyncGenerator[Batch, None]:
    """Yield what comes after `position`. It subscribes before it reads: what is committed meanwhile is in the queue."""
    with hub.subscribe(organization_id, stream_id) as (channel, subscriber):
        while not subscriber.closed:
            subscriber.restart()
            page = await read(position)
            position = page.covered
            hub.know(channel, position)
            if page.events:
                yield Batch(page.events, position)
            if page.full:
                continue
            while subscriber.continues(position, channel.last) and not subscriber.closed:
                events, position = _join(await subscriber.take(), position)
                if events or not (subscriber.overflowed or subscriber.closed):
                    yield Batch(events, position)


def _join(chunks: list[Chunk], position: int) -> tuple[list[Event], int]:
    """The events after `position` of chunks that go on from it; it ends at a gap, for the log to fill."""
    events: list[Event] = []
    for chunk in chunks:
        if chunk.first > position + 1:
            break
        if chunk.first == position + 1:
            events += chunk.events
        else:
            events += [event for event in chunk.events if event.sequence > position]
        position = max(position, chunk.last)
    return events, position
