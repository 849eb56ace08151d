"""Halts a server in the middle of what it does: a test that kills it there comes neither too early nor too late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.waiting import until

_KEY = 771_234_567


class Halt:
    """Where a server is to halt."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def reached(self) -> None:
        """Returns once the server has come there; it goes no further."""

        async def waits() -> bool:
            sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted"
            return bool(await self._connection.fetchval(sql, _KEY))

        await until(waits, seconds=120)


@asynccontextmanager
async def halting(url: str, change: str, when: str) -> AsyncIterator[Halt]:
    """Halt whatever server makes this change (`UPDATE ON archives`) of a row (`NEW.state = 'READY'`), in the body."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock($1::bigint)", _KEY)
        await connection.execute(
            f"""CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_advisory_xact_lock_shared({_KEY}); RETURN NULL; END $$;
                CREATE TRIGGER halt AFTER {change} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION halt()"""
        )
        try:
            yield Halt(connection)
        finally:
            await connection.execute("SELECT pg_advisory_unlock_all()")
            await connection.execute("DROP FUNCTION halt() CASCADE")
    finally:
        await connection.close()
