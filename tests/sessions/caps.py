"""The caps of a day: setting them, and looking whether they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from stationmaster_server.identity import key_store, quota_store
from stationmaster_server.identity.model import Amounts, Quota

from tests.sessions.station import Station


async def cap(station: Station, subject: UUID, **limits: Any) -> None:
    """Limit what these may use, known to this station at once and to others within a second."""
    async with station.database.system() as tx:
        await quota_store.put_quota(tx, station.caller.tenant.organization_id, Quota(subject, **limits))
        await key_store.notify(tx, f"quota:{subject}")
    station.services.quotas.forget()


async def used_today(station: Station, subject: UUID) -> Amounts:
    """What is used of the day, reserved included."""
    async with station.database.system(autocommit=True) as tx:
        used = await quota_store.get_used(tx, station.caller.tenant.organization_id, [subject])
    return used[subject].today


@asynccontextmanager
async def watched(station: Station, subject: UUID) -> AsyncIterator[list[Amounts]]:
    """Looks at what is used again and again, until the body ends."""
    seen: list[Amounts] = []

    async def watch() -> None:
        while True:
            seen.append(await used_today(station, subject))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
