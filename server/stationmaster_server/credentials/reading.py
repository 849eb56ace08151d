"""Reads what accesses ask for. Those of one tenant that come while another is in flight go in one statement."""

from __future__ import annotations

import asyncio

from stationmaster_server.credentials import access_store
from stationmaster_server.credentials.access_store import Found, Wanted
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant

_MOST = 256

Waiting = tuple[Wanted, "asyncio.Future[Found | None]"]


class Reader:
    """No timer: whoever comes when nothing is in flight is read at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[Tenant, list[Waiting]] = {}
        self._reading: dict[Tenant, asyncio.Task[None]] = {}

    async def find(self, tenant: Tenant, wanted: Wanted) -> Found | None:
        """What an access asks for; None: there is no such credential. Raises Unavailable."""
        future: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, []).append((wanted, future))
        if tenant not in self._reading:
            # A task of its own: a caller that goes away must not take the others' reads with it.
            self._reading[tenant] = asyncio.create_task(self._drain(tenant), name="read credentials")
        return await future

    async def _drain(self, tenant: Tenant) -> None:
        try:
            while waiting := self._waiting.pop(tenant, None):
                for start in range(0, len(waiting), _MOST):
                    await self._read(tenant, waiting[start : start + _MOST])
        finally:
            del self._reading[tenant]

    async def _read(self, tenant: Tenant, batch: list[Waiting]) -> None:
        # Gathered, so that whatever goes wrong reaches those who wait for it.
        (read,) = await asyncio.gather(self._query(tenant, [wanted for wanted, _ in batch]), return_exceptions=True)
        for place, (_, future) in enumerate(batch):
            if future.done():
                continue
            if isinstance(read, BaseException):
                future.set_exception(read)
            else:
                future.set_result(read[place])

    async def _query(self, tenant: Tenant, wanted: list[Wanted]) -> list[Found | None]:
        async with self._database.tenant(tenant, read=True) as tx:
            return await access_store.find(tx, tenant.organization_id, wanted)
