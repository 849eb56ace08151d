"""Texts of tasks in a file of SQLite, searched by FTS5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import apsw

from stationmaster_server.tasks.sync.model import About, Key, TaskState
from stationmaster_server.tasks.sync.stores.sqlite_store import SqliteTarget, key_of


class TextStore(SqliteTarget):
    """`tasks` has them; `texts` finds them by what they say."""

    about = (About.TASK,)
    names = ("texts", "tasks")
    tables = (
        """CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, organization_id TEXT NOT NULL,
            task_id TEXT NOT NULL, kind TEXT NOT NULL, display_name TEXT NOT NULL, state TEXT NOT NULL,
            etag TEXT NOT NULL, UNIQUE (organization_id, task_id))""",
        "CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5 (body)",
    )

    def _put(self, file: apsw.Connection, state: TaskState) -> None:
        named = (str(state.key.organization_id), state.key.task_id)
        old = file.execute("DELETE FROM tasks WHERE organization_id = ? AND task_id = ? RETURNING id", named).fetchone()
        if old is not None:
            file.execute("DELETE FROM texts WHERE rowid = ?", old)
        if state.text is None:
            return
        text = state.text
        file.execute(
            """INSERT INTO tasks (organization_id, task_id, kind, display_name, state, etag)
               VALUES (?, ?, ?, ?, ?, ?)""",
            (*named, text.kind, text.display_name, text.state, text.etag),
        )
        file.execute("INSERT INTO texts (rowid, body) VALUES (?, ?)", (file.last_insert_rowid(), text.body))

    def _contents(self) -> Mapping[Key, object]:
        rows = self._file.execute(
            """SELECT organization_id, task_id, kind, display_name, state, body, etag
               FROM texts f LEFT JOIN tasks t ON t.id = f.rowid"""
        )
        return {key_of(row[0], row[1]): tuple(row[2:]) for row in rows}

    def wanted(self, states: Sequence[TaskState]) -> Mapping[Key, object]:
        """What each task says."""
        found: dict[Key, object] = {}
        for state in states:
            if (text := state.text) is not None:
                found[state.key] = (text.kind, text.display_name, text.state, text.body, text.etag)
        return found
