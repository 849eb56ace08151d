"""Targets in a file of SQLite: the tasks and the cursor are written in one transaction of it."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from uuid import UUID

import apsw

from stationmaster_server.tasks.sync.model import NOTHING, Cursor, Key, Position, TaskState
from stationmaster_server.tasks.sync.stores.base import StoreTarget

_CURSOR = """CREATE TABLE IF NOT EXISTS sync_progress (source TEXT, transaction_id INTEGER, number INTEGER,
    filling_organization_id TEXT, filling_task_id TEXT)"""
_WAIT_MS = 10_000
"""For readers of the file."""


class SqliteTarget(StoreTarget):
    """A file of SQLite; `tables` make what is in it, `names` are those that a reset drops, `tasks` last.

    `held` selects what there is of a task, `strays` counts what is of none.
    """

    errors = (OSError, apsw.Error)
    tables: tuple[str, ...]
    names: tuple[str, ...]
    held: str
    strays: str

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection: apsw.Connection | None = None

    @property
    def _file(self) -> apsw.Connection:
        if self._connection is None:
            raise OSError("it is closed")
        return self._connection

    def _start(self) -> None:
        if self._connection is not None and self.path.exists():
            return
        self._stop()
        # Nobody else reads what is in it: SQLite gives the files beside it the mode of this one.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = apsw.Connection(str(self.path))
        try:
            connection.set_busy_timeout(_WAIT_MS)
            connection.transaction_mode = "IMMEDIATE"
            self._prepare(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            for table in (_CURSOR, *self.tables):
                connection.execute(table)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _prepare(self, connection: apsw.Connection) -> None:
        """Load what the tables need."""

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _cursor(self) -> Cursor | None:
        row = self._file.execute("SELECT * FROM sync_progress").fetchone()
        filling = None if row is None or row[3] is None else key_of(*row[3:])
        return None if row is None else Cursor(row[0], Position(row[1], row[2]), filling)

    def _apply(self, states: Sequence[TaskState], cursor: Cursor) -> None:
        with self._file as file:
            for state in states:
                self._put(file, state)
            _put_cursor(file, cursor)

    async def keys(self, at_once: int) -> AsyncIterator[Sequence[Key]]:
        """Of each row of `tasks`. Raises TargetAway if something is in the file that belongs to none."""
        await self._off_loop(self._refuse_strays)
        keys = [NOTHING]
        while keys:
            keys = await self._off_loop(partial(self._keys_after, keys[-1], at_once))
            yield keys

    def _refuse_strays(self) -> None:
        for (count,) in self._file.execute(self.strays):
            if count:
                raise OSError(f"{count} {self.names[0]} in it are of no task")

    def _keys_after(self, key: Key, limit: int) -> list[Key]:
        rows = self._file.execute(
            """SELECT organization_id, task_id FROM tasks
               WHERE (organization_id, task_id) > (?, ?) ORDER BY 1, 2 LIMIT ?""",
            (*_named(key), limit),
        )
        return [key_of(*row) for row in rows]

    def _held(self, key: Key) -> object:
        row = self._file.execute(self.held, _named(key)).fetchone()
        return None if row is None else tuple(row)

    @abstractmethod
    def _put(self, file: apsw.Connection, state: TaskState) -> None: ...

    def _reset(self, cursor: Cursor) -> None:
        with self._file as file:
            _put_cursor(file, cursor)
            for name in self.names:
                file.execute(f"DROP TABLE {name}")
            for table in self.tables:
                file.execute(table)


def _put_cursor(file: apsw.Connection, cursor: Cursor) -> None:
    filling = (None, None) if cursor.filling is None else (str(cursor.filling.organization_id), cursor.filling.task_id)
    file.execute("DELETE FROM sync_progress")
    file.execute("INSERT INTO sync_progress VALUES (?, ?, ?, ?, ?)", (cursor.source, *cursor.position, *filling))


def _named(key: Key) -> tuple[str, str]:
    return str(key.organization_id), key.task_id


def key_of(organization_id: str, task_id: str) -> Key:
    """A task as it is named in a file."""
    return Key(UUID(organization_id), task_id)
