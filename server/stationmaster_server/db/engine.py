"""`Database`: a tenant transaction and a system transaction; there is no third way to a connection."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from stationmaster_server.db.connection import Connection, Opening, system_opening, tenant_opening
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.pool import Pool
from stationmaster_server.db.transaction import Block, Statements, Transaction
from stationmaster_server.errors import Unavailable

_RETRY_PAUSE = 0.1


class Database:
    """PostgreSQL as the rooms and the engines see it. Reconnects by itself; an outage is Unavailable, never a hang."""

    def __init__(self, tenants: Opening, engines: Opening, *, pool_size: int, system_pool_size: int) -> None:
        wait_limit = timedelta(seconds=10)
        self._tenants = Pool(tenants.open, pool_size, wait_limit)
        self._engines = Pool(engines.open, system_pool_size, wait_limit)
        self._engine_opening = engines

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        pool_size: int,
        system_pool_size: int,
        connect_timeout: timedelta,
        statement_timeout: timedelta = timedelta(seconds=30),
    ) -> Database:
        """Wait until the database answers, at most `connect_timeout`; then Unavailable, or NotMigrated at once."""
        database = cls(
            tenant_opening(url, statement_timeout),
            system_opening(url, statement_timeout),
            pool_size=pool_size,
            system_pool_size=system_pool_size,
        )
        give_up = asyncio.get_running_loop().time() + connect_timeout.total_seconds()
        while True:
            try:
                async with asyncio.timeout_at(give_up):
                    await database.ping()
                return database
            except (Unavailable, TimeoutError):
                if asyncio.get_running_loop().time() + _RETRY_PAUSE > give_up:
                    await database.close()
                    raise
                await asyncio.sleep(_RETRY_PAUSE)
            except BaseException:
                await database.close()
                raise

    def tenant(self, tenant: Tenant, *, read: bool = False) -> Transaction:
        """A transaction of a tenant, under row-level security.

        `read`: no transaction block; each statement sees what is committed when it starts, and none can write.
        Otherwise BEGIN..COMMIT; UnauditedChange when it changed rows and no audit was written.
        """
        return Statements(self._tenants, tenant) if read else Block(self._tenants, tenant)

    def system(self, *, autocommit: bool = False) -> Transaction:
        """A transaction of an engine, which sees all tenants; `autocommit`: each statement commits by itself."""
        return Statements(self._engines, None) if autocommit else Block(self._engines, None)

    async def ping(self) -> None:
        """One round trip of each kind; Unavailable when the database is away, or every connection stays busy."""
        for session in (Statements(self._tenants, None), self.system(autocommit=True)):
            async with session as tx:
                await tx.fetchval("SELECT 1")

    @property
    def connected(self) -> bool:
        """Whether calls and engines have a connection each, at least."""
        return self._tenants.connected and self._engines.connected

    async def open_dedicated(self) -> Connection:
        """A connection outside the pools, for what must not wait for one of theirs; the caller closes it."""
        return await self._engine_opening.open()

    def abandon(self) -> None:
        """Break off every connection of the pools, whatever is under way on it: Unavailable, now and from now on."""
        self._tenants.abandon()
        self._engines.abandon()

    async def close(self) -> None:
        """Close every connection; those in use as soon as they are given back."""
        await asyncio.gather(self._tenants.close(), self._engines.close())
