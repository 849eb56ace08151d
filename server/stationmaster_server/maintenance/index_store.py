"""The statements of looking after tables, on a connection of their own: VACUUM stands in no transaction.

Tables and indexes are named with their schema, as the database quotes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from stationmaster_server.db.connection import Connection

_LIMIT_SECONDS = 3600
# VACUUM and REINDEX pass over what they may not, with a warning. Before PostgreSQL 17 only the owner may.
_PERMITTED = """CASE WHEN current_setting('server_version_num')::int >= 170000
                THEN has_table_privilege(t.oid, 'MAINTAIN') ELSE pg_has_role(t.relowner, 'USAGE') END"""
# What others have in this database is theirs.
_OURS = "t.relnamespace = 'public'::regnamespace"
_NAME = "format('public.%I', {}.relname)"


async def take_time(connection: Connection) -> None:
    """Large tables take longer than a statement of a call may; the service's own limit ends what takes too long."""
    await connection.execute("SET statement_timeout = 0")


async def due(connection: Connection, changes: int, every: timedelta) -> tuple[list[str], list[str]]:
    """Tables of which so many rows changed since they were analyzed, or that nobody vacuumed for so long.

    Those that may be vacuumed, and those that may not.
    """
    rows = await connection.fetch(
        f"""SELECT {_NAME.format("t")} AS name, {_PERMITTED} AS permitted
            FROM pg_stat_user_tables s JOIN pg_class t ON t.oid = s.relid
            WHERE {_OURS} AND t.relkind <> 'p' AND (
                n_mod_since_analyze + n_dead_tup >= $1
                OR n_live_tup > 0
                   AND coalesce(greatest(last_vacuum, last_autovacuum), '-infinity') < now() - $2::interval)
            ORDER BY 1""",
        changes,
        every,
    )
    return [row["name"] for row in rows if row["permitted"]], [row["name"] for row in rows if not row["permitted"]]


async def vacuum(connection: Connection, table: str) -> None:
    """Vacuum and analyze a table."""
    await connection.execute(f"VACUUM (ANALYZE) {table}", timeout=_LIMIT_SECONDS)


async def wholes(connection: Connection, tables: Sequence[str]) -> list[str]:
    """The tables of which some of these are partitions, and that may be analyzed: nobody does that by itself."""
    rows = await connection.fetch(
        f"""SELECT DISTINCT {_NAME.format("t")} AS name FROM pg_inherits h JOIN pg_class t ON t.oid = h.inhparent
            WHERE h.inhrelid = ANY($1::text[]::regclass[]) AND t.relkind = 'p' AND {_OURS} AND {_PERMITTED}
            ORDER BY 1""",
        tables,
    )
    return [row["name"] for row in rows]


async def analyze(connection: Connection, table: str) -> None:
    """Have the planner know a table as it is now, with its partitions."""
    await connection.execute(f"ANALYZE {table}", timeout=_LIMIT_SECONDS)


async def swollen(connection: Connection, times: float) -> list[str]:
    """Indexes of vectors that are so many times as large as the table that they are on, and may be made anew."""
    rows = await connection.fetch(
        f"""SELECT {_NAME.format("i")} AS name
            FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam
            JOIN pg_class t ON t.oid = x.indrelid
            WHERE a.amname = 'hnsw' AND x.indisvalid AND {_OURS} AND {_PERMITTED}
              AND pg_relation_size(i.oid) > 8 * 1024 * 1024
              AND pg_relation_size(i.oid) > $1 * greatest(pg_table_size(t.oid), 1) ORDER BY 1""",
        times,
    )
    return [row["name"] for row in rows]


async def reindex(connection: Connection, index: str) -> None:
    """Make an index anew beside the old one, so that nobody waits."""
    await connection.execute(f"REINDEX INDEX CONCURRENTLY {index}", timeout=_LIMIT_SECONDS)
