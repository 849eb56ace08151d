"""What tests do with a watch: collect until a condition holds, with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from uuid import UUID

from stationmaster_server.db.model import Tenant
from stationmaster_server.events.log import EventLog
from stationmaster_server.events.model import Event

LIMIT = 20.0


async def collect(log: EventLog, tenant: Tenant, stream: UUID, after: int, until: int) -> list[Event]:
    """The events after a cursor until sequence `until` was seen."""
    events: list[Event] = []
    async with asyncio.timeout(LIMIT), aclosing(log.watch(tenant, stream, after)) as batches:
        async for batch in batches:
            events += batch.events
            if batch.last_sequence >= until:
                return events
    raise AssertionError("the watch ended")


async def eventually(condition: Callable[[], bool], limit: float = LIMIT) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - what is waited for may be in the database
            await asyncio.sleep(0.005)


def sequences(events: list[Event]) -> list[int]:
    """The sequences of events."""
    return [event.sequence for event in events]
