"""Texts of tasks in a file of SQLite, searched by FTS5."""

from __future__ import annotations

import apsw

from stationmaster_server.tasks.sync.model import About, TaskState
from stationmaster_server.tasks.sync.stores.sqlite_store import SqliteTarget


class TextStore(SqliteTarget):
    """`tasks` has them; `texts` finds them by what they say."""

    about = (About.TASK,)
    names = ("texts", "tasks")
    held = """SELECT kind, display_name, state, body, etag FROM tasks t LEFT JOIN texts f ON f.rowid = t.id
              WHERE organization_id = ? AND task_id = ?"""
    strays = "SELECT count(*) FROM texts WHERE rowid NOT IN (SELECT id FROM tasks)"
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

    def _wanted(self, state: TaskState) -> object:
        text = state.text
        return None if text is None else (text.kind, text.display_name, text.state, text.body, text.etag)
