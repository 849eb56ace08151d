"""The statements of looking after tables, on a connection of their own: VACUUM stands in no transaction."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.db.connection import Connection

_LIMIT_SECONDS = 3600


async def take_time(connection: Connection) -> None:
    """Large tables take longer than a statement of a call may; the service's own limit ends what takes too long."""
    await connection.execute("SET statement_timeout = 0")


async def due(connection: Connection, changes: int, every: timedelta) -> list[str]:
    """Tables of which so many rows changed since they were analyzed, or that nobody vacuumed for so long."""
    rows = await connection.fetch(
        """SELECT relname FROM pg_stat_user_tables s
           WHERE n_mod_since_analyze + n_dead_tup >= $1
              OR n_live_tup > 0 AND coalesce(greatest(last_vacuum, last_autovacuum), '-infinity') < now() - $2::interval
           ORDER BY relname""",
        changes,
        every,
    )
    return [row["relname"] for row in rows]


async def vacuum(connection: Connection, table: str) -> None:
    """Vacuum and analyze a table, whose name is the database's own."""
    await connection.execute(f"VACUUM (ANALYZE) {_quoted(table)}", timeout=_LIMIT_SECONDS)


async def swollen(connection: Connection, times: float) -> list[str]:
    """Indexes of vectors that are so many times as large as the table that they are on."""
    rows = await connection.fetch(
        """SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
           JOIN pg_class t ON t.oid = x.indrelid
           WHERE a.amname = 'hnsw' AND pg_relation_size(i.oid) > 8 * 1024 * 1024
             AND pg_relation_size(i.oid) > $1 * greatest(pg_table_size(t.oid), 1) ORDER BY 1""",
        times,
    )
    return [row["relname"] for row in rows]


async def reindex(connection: Connection, index: str) -> None:
    """Make an index anew beside the old one, so that nobody waits."""
    await connection.execute(f"REINDEX INDEX CONCURRENTLY {_quoted(index)}", timeout=_LIMIT_SECONDS)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
