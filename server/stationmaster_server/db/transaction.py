"""What stores get: an open transaction, and nothing else of the database."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import asyncpg

from stationmaster_server.db.connection import Connection
from stationmaster_server.db.errors import CommitFailed, UnauditedChange, translate
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.pool import Pool

logger = logging.getLogger(__name__)

# Locking a row is no change; inserting, updating and deleting one is. PostgreSQL's own counters do not tell: they may
# hold those of the connection's transaction before.
_LOCKS = re.compile(r"\bFOR\s+(NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE)
_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY)\b", re.IGNORECASE)


@lru_cache(maxsize=2048)
def writes(sql: str) -> bool:
    """Whether the statement is one that changes rows, whether or not it finds any."""
    return _WRITES.search(_LOCKS.sub("", sql)) is not None


class _Over:
    """Stands in for the connection once the transaction has ended."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("this transaction is over: open another one (nothing may outlive its `async with`)")


_OVER: Any = _Over()


class Transaction:
    """An open transaction, or, for reads, statements that each see what is committed when they start.

    Its queries are the driver's own coroutines; whatever leaves the `async with` is translated there, once.
    """

    __slots__ = ("_callbacks", "_connection", "_pool", "_tenant", "_wrote", "audited")

    def __init__(self, pool: Pool, tenant: Tenant | None) -> None:
        self._pool = pool
        self._tenant = tenant
        self._connection: Connection = _OVER
        self._callbacks: list[Callable[[], None]] | None = None
        self._wrote = False
        self.audited = False

    def fetch(self, sql: str, *args: object) -> Awaitable[list[asyncpg.Record]]:
        """All rows."""
        self._wrote = self._wrote or writes(sql)
        return self._connection.fetch(sql, *args)

    def fetchrow(self, sql: str, *args: object) -> Awaitable[asyncpg.Record | None]:
        """The first row, or None."""
        self._wrote = self._wrote or writes(sql)
        return self._connection.fetchrow(sql, *args)

    def fetchval(self, sql: str, *args: object) -> Awaitable[Any]:
        """The first column of the first row, or None."""
        self._wrote = self._wrote or writes(sql)
        return self._connection.fetchval(sql, *args)

    def execute(self, sql: str, *args: object) -> Awaitable[str]:
        """Run a statement for its effect; returns its command tag (`UPDATE 1`)."""
        self._wrote = self._wrote or writes(sql)
        return self._connection.execute(sql, *args)

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> Awaitable[None]:
        """Run a statement once for each row of arguments, in one round trip."""
        self._wrote = self._wrote or writes(sql)
        return self._connection.executemany(sql, rows)

    async def wait_at_most(self, limit: timedelta) -> None:
        """Wait for no lock longer than that: what is not had by then ends the transaction with Aborted."""
        await self.execute(f"SET LOCAL lock_timeout = {max(limit // timedelta(milliseconds=1), 1)}")

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback`, in the order of these calls, once COMMIT has succeeded; never after a rollback."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def _run_callbacks(self) -> None:
        for callback in self._callbacks or ():
            try:
                callback()
            except Exception:
                # What is committed stays committed: the call succeeded, and the other callbacks have their turn.
                logger.exception("a callback after a commit failed")


class Statements(Transaction):
    """No transaction block: each statement is one round trip and commits, or reads, by itself."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        connection = self._pool.take(self._tenant) or await self._pool.wait()
        if connection.tenant != self._tenant and self._tenant is not None:
            connection.tenant = None
            try:
                await connection.execute(_set_tenant(self._tenant))
            except BaseException as error:
                _give_back(self._pool, connection, error)
                _raise_translated(error, connection)
                raise
            connection.tenant = self._tenant
        self._connection = connection
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection = self._connection
        self._connection = _OVER
        _give_back(self._pool, connection, error)
        if self._tenant is not None and isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            return  # a write in a tenant's read: a bug of ours, and no standby's refusal
        if error is not None:
            _raise_translated(error, connection)
        elif self._callbacks is not None:
            self._run_callbacks()


class Block(Transaction):
    """BEGIN to COMMIT, or to ROLLBACK when anything is raised inside. A tenant's changes must have been audited."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        connection = self._pool.take(self._tenant) or await self._pool.wait()
        begin = "BEGIN READ WRITE"
        if connection.tenant != self._tenant and self._tenant is not None:
            connection.tenant = None  # until COMMIT: a rollback takes the setting back
            begin = f"{begin}; {_set_tenant(self._tenant)}"
        try:
            await connection.execute(begin)
        except BaseException as error:
            connection.terminate()
            self._pool.give(connection)
            _raise_translated(error, connection)
            raise
        self._connection = connection
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        connection = self._connection
        if error is not None:
            self._connection = _OVER
            if isinstance(error, asyncpg.InternalClientError):
                connection.terminate()  # its server ended: it is out of step, and what it says of itself untrue
            await self._roll_back(connection)
            _raise_translated(error, connection)
            return
        # A task of its own: a caller that is cancelled now must not leave it unknown whether COMMIT succeeded.
        await asyncio.shield(asyncio.create_task(self._commit(connection)))

    async def _commit(self, connection: Connection) -> None:
        try:
            if self._tenant is not None and self._wrote and not self.audited:
                await connection.execute("ROLLBACK")
                raise UnauditedChange("a tenant transaction changed rows without writing to the audit trail")
            if await connection.execute("COMMIT") != "COMMIT":
                connection.tenant = None
                raise CommitFailed("a statement had failed inside the transaction; nothing was committed")
            connection.tenant = self._tenant
        except (UnauditedChange, CommitFailed):
            raise
        except BaseException as error:
            connection.terminate()
            _raise_translated(error, connection)
            raise
        finally:
            self._connection = _OVER
            self._pool.give(connection)
        if self._callbacks is not None:
            self._run_callbacks()

    async def _roll_back(self, connection: Connection) -> None:
        try:
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
        except BaseException as error:
            connection.terminate()  # the server rolls back what lost its client
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._pool.give(connection)


def _set_tenant(tenant: Tenant) -> str:
    # `hex` is what only a UUID has: nothing else can get into this text.
    return (
        f"SET stationmaster.organization = '{tenant.organization_id.hex}';"
        f" SET stationmaster.\"user\" = '{tenant.user_id.hex}'"
    )


def _give_back(pool: Pool, connection: Connection, error: BaseException | None) -> None:
    """Give back a connection on which no transaction is open."""
    # One that its server ended while it was idle is out of step until it is closed: of no use to whoever is next.
    if isinstance(error, asyncpg.InternalClientError):
        connection.terminate()
    pool.give(connection)


def _raise_translated(error: BaseException, connection: Connection) -> None:
    ours = translate(error, connection_closed=connection.is_closed())
    if ours is not None:
        raise ours from error
