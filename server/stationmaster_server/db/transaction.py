"""What stores get: an open transaction, and nothing else of the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    Record = asyncpg.Record
    DriverConnection = asyncpg.Connection[asyncpg.Record]
else:
    DriverConnection = asyncpg.Connection


class _Over:
    """Stands in for the connection once the transaction has ended."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("this transaction is over: open another one (nothing may outlive its `async with`)")


OVER: Any = _Over()


class Transaction:
    """An open transaction (or, for reads, statements that each see what is committed).

    Its queries are the driver's own coroutines: whatever they raise is translated once, where the transaction ends.
    """

    __slots__ = ("_callbacks", "_connection", "audited")

    def __init__(self) -> None:
        self._connection: DriverConnection = OVER
        self._callbacks: list[Callable[[], None]] | None = None
        self.audited = False

    def fetch(self, sql: str, *args: object) -> Awaitable[list[Record]]:
        """All rows."""
        return self._connection.fetch(sql, *args)

    def fetchrow(self, sql: str, *args: object) -> Awaitable[Record | None]:
        """The first row, or None."""
        return self._connection.fetchrow(sql, *args)

    def fetchval(self, sql: str, *args: object) -> Awaitable[Any]:
        """The first column of the first row, or None."""
        return self._connection.fetchval(sql, *args)

    def execute(self, sql: str, *args: object) -> Awaitable[str]:
        """Run a statement for its effect; returns its command tag (`UPDATE 1`)."""
        return self._connection.execute(sql, *args)

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> Awaitable[None]:
        """Run a statement once for each row of arguments, in one round trip."""
        return self._connection.executemany(sql, rows)

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback`, in order of registration, once COMMIT has succeeded; never after a rollback."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)
