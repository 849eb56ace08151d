"""One query on the configured database, on a connection of its own that can only read; ADR 0055 tells why so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from stationmaster_server.config.mcp_builtin import McpDatabaseSettings
from stationmaster_server.mcp.builtin.database_rows import FLOATS, INTEGERS, Column, Rows, Taken, cell_limit
from stationmaster_server.mcp.builtin.privileges_store import find_faults

if TYPE_CHECKING:
    from asyncpg.prepared_stmt import PreparedStatement

    _Connection = asyncpg.Connection[asyncpg.Record]
    _Statement = PreparedStatement[asyncpg.Record]

logger = logging.getLogger(__name__)

_BATCH = 10  # rows of at most MAX_BYTES characters each
_OPEN_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 5.0
_TAKEN_AS_THEY_ARE = INTEGERS | FLOATS | {"bool", "text", "varchar", "bpchar", "name", "uuid", "unknown"}

Parameter = str | int | float | bool | list[Any] | None


class QueryRefused(Exception):
    """The query was not run to its end; the message says why, and is for the caller."""


class ReadOnlyDatabase:
    """Runs queries that can only read. Nothing of one reaches the next: each has its own connection."""

    def __init__(self, settings: McpDatabaseSettings) -> None:
        assert settings.url is not None, "there is no server `database` without mcp.database.url"  # noqa: S101
        self._url = settings.url.get_secret_value()
        self._role = settings.role
        self._max_rows = settings.max_rows
        self._timeout = settings.query_timeout
        self._slots = asyncio.Semaphore(settings.max_connections)

    async def query(self, sql: str, parameters: Sequence[Parameter] = ()) -> Rows:
        """Run one query. Raises QueryRefused."""
        limit = self._timeout.total_seconds()
        try:
            # The server's own limit comes first; this one holds when a query moved that.
            async with asyncio.timeout(limit + 1), self._slots, self._connection() as connection:
                return await self._run(connection, sql, parameters)
        except (TimeoutError, asyncpg.QueryCanceledError):
            raise QueryRefused(f"the query took longer than {limit:g} s and was ended; ask for less") from None
        except asyncpg.PostgresError as error:
            raise QueryRefused(_told(error)) from error
        except (OSError, asyncpg.InterfaceError) as error:
            if isinstance(error, ValueError):  # a parameter that does not fit
                raise QueryRefused(str(error)) from error
            logger.warning("the database of the MCP server `database` broke off: %s", type(error).__name__)
            raise QueryRefused("the connection to the database was lost; try again") from error

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        connection = await self._open()
        try:
            yield connection
        finally:
            # Ends the transaction, whatever was done in it; a query under way is cancelled on the server first.
            await asyncio.shield(asyncio.create_task(_close(connection)))

    async def _open(self) -> _Connection:
        limit = _milliseconds(self._timeout)
        try:
            return await asyncpg.connect(
                self._url,
                timeout=_OPEN_TIMEOUT,
                statement_cache_size=0,
                server_settings={
                    "application_name": "stationmaster mcp database",
                    "default_transaction_read_only": "on",
                    "statement_timeout": limit,
                    "lock_timeout": _milliseconds(min(self._timeout, timedelta(seconds=5))),
                    "idle_in_transaction_session_timeout": limit,
                    # A query that cannot be cancelled ends once its client is gone.
                    "client_connection_check_interval": "1000ms",
                },
            )
        except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # Where it is and who logs in is no caller's business; what is wrong with a URL may quote its password.
            told = str(error) if isinstance(error, OSError | asyncpg.PostgresError) else type(error).__name__
            logger.warning("the database of mcp.database.url cannot be used: %s", told)
            raise QueryRefused("the database cannot be reached; an administrator finds the reason in the log") from None

    async def _run(self, connection: _Connection, sql: str, parameters: Sequence[Parameter]) -> Rows:
        await self._begin(connection)
        plain = await connection.prepare(sql)  # parsed, not run: a single statement, or an error
        attributes = plain.get_attributes()
        if not attributes:
            raise QueryRefused("this returns no rows: only a query (SELECT, VALUES, TABLE, WITH) can be run")
        await _take_text(connection, plain)
        columns = tuple(Column(attribute.name, attribute.type.name) for attribute in attributes)
        cell = cell_limit(len(columns))
        return await self._fetch(
            connection, await connection.prepare(_bounded(sql, columns, cell)), columns, parameters
        )

    async def _begin(self, connection: _Connection) -> None:
        await connection.execute("BEGIN READ ONLY")
        if connection.get_server_version() >= (17,):
            await connection.execute(f"SET LOCAL transaction_timeout = '{_milliseconds(self._timeout * 2)}'")
        if self._role:
            quoted = self._role.replace('"', '""')
            await connection.execute(f'SET LOCAL ROLE "{quoted}"')
        faults = await find_faults(connection)
        if faults:
            told = "; ".join(f"it {fault} ({remedy})" for fault, remedy in faults)
            logger.warning("the login of mcp.database.url is refused: %s", told)
            raise QueryRefused(
                "the login of mcp.database.url can do more than read, so nothing was run. An administrator of the"
                f" database can mend that, or make a login that only reads (guide: built-in MCP servers): {told}"
            )

    async def _fetch(
        self,
        connection: _Connection,
        statement: _Statement,
        columns: tuple[Column, ...],
        parameters: Sequence[Parameter],
    ) -> Rows:
        expected = len(statement.get_parameters())
        if expected != len(parameters):
            raise QueryRefused(f"the query has {expected} parameters ($1, $2, ...), and {len(parameters)} were given")
        taken = Taken(columns, self._max_rows)
        cursor = await statement.cursor(*parameters)
        while taken.wants_more:
            # A query may have moved its own limit; the rows to come get a new one.
            await connection.execute(f"SET LOCAL statement_timeout = '{_milliseconds(self._timeout)}'")
            batch = await cursor.fetch(_BATCH)
            taken.add(batch)
            if len(batch) < _BATCH:
                break
        return taken.result()


def _bounded(sql: str, columns: Sequence[Column], cell: int) -> str:
    """The query as a table, its cells as text that the server cuts: what is huge never gets here.

    It begins with our SELECT and is one statement, so it is a query, whatever `sql` is.
    """
    names = [f"c{number}" for number in range(len(columns))]
    cells = ", ".join(f"pg_catalog.left(q.{name}::text, {cell + 1})" for name in names)
    return f"SELECT {cells} FROM (\n{sql.rstrip().rstrip(';')}\n) AS q({', '.join(names)})"


async def _take_text(connection: _Connection, statement: _Statement) -> None:
    """Let parameters of types that JSON has not (dates, numerics, addresses) be given as text."""
    for kind in {parameter.name: parameter for parameter in statement.get_parameters()}.values():
        if kind.kind == "scalar" and kind.name not in _TAKEN_AS_THEY_ARE:
            await connection.set_type_codec(kind.name, schema=kind.schema, encoder=str, decoder=str, format="text")


async def _close(connection: _Connection) -> None:
    try:
        await connection.close(timeout=_CLOSE_TIMEOUT)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _told(error: asyncpg.PostgresError) -> str:
    hint = f" ({error.hint})" if getattr(error, "hint", None) else ""
    return f"PostgreSQL answers {error.sqlstate}: {error}{hint}"


def _milliseconds(time: timedelta) -> str:
    return f"{max(1, int(time.total_seconds() * 1000))}ms"
