"""Vectors of tasks in a file of SQLite, searched by the extension sqlite-vec."""

from __future__ import annotations

import apsw
import sqlite_vec

from stationmaster_server.embedding.encoder import DIMENSIONS
from stationmaster_server.tasks.sync.model import About, TaskState
from stationmaster_server.tasks.sync.stores.sqlite_store import SqliteTarget


class VectorStore(SqliteTarget):
    """`tasks` says which row of `vectors` is whose; `vectors` finds what is near (cosine), by organization."""

    about = (About.VECTOR,)
    names = ("vectors", "tasks")
    held = """SELECT etag, encoder, v.organization_id, vector FROM tasks t LEFT JOIN vectors v ON v.id = t.id
              WHERE t.organization_id = ? AND task_id = ?"""
    strays = "SELECT count(*) FROM vectors WHERE id NOT IN (SELECT id FROM tasks)"
    tables = (
        """CREATE TABLE IF NOT EXISTS tasks (id INTEGER PRIMARY KEY, organization_id TEXT NOT NULL,
            task_id TEXT NOT NULL, etag TEXT NOT NULL, encoder TEXT NOT NULL, UNIQUE (organization_id, task_id))""",
        f"""CREATE VIRTUAL TABLE IF NOT EXISTS vectors USING vec0 (id INTEGER PRIMARY KEY,
            organization_id TEXT PARTITION KEY, vector FLOAT[{DIMENSIONS}] DISTANCE_METRIC=cosine)""",
    )

    def _prepare(self, connection: apsw.Connection) -> None:
        connection.enable_load_extension(True)
        sqlite_vec.load(connection)
        connection.enable_load_extension(False)

    def _put(self, file: apsw.Connection, state: TaskState) -> None:
        named = (str(state.key.organization_id), state.key.task_id)
        old = file.execute("DELETE FROM tasks WHERE organization_id = ? AND task_id = ? RETURNING id", named).fetchone()
        if old is not None:
            file.execute("DELETE FROM vectors WHERE id = ?", old)
        if state.vector is None:
            return
        vector = state.vector
        file.execute(
            "INSERT INTO tasks (organization_id, task_id, etag, encoder) VALUES (?, ?, ?, ?)",
            (*named, vector.etag, vector.encoder),
        )
        file.execute("INSERT INTO vectors VALUES (?, ?, ?)", (file.last_insert_rowid(), named[0], vector.values))

    def _wanted(self, state: TaskState) -> object:
        vector = state.vector
        return None if vector is None else (vector.etag, vector.encoder, str(state.key.organization_id), vector.values)
