"""What a database consists of, as PostgreSQL tells it: to compare two of them."""

from __future__ import annotations

from typing import Any

import asyncpg
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from stationmaster_server.db.migrations.run import sqlalchemy_url

_OURS = "NOT IN ('alembic_version', 'alembic_version_pkc')"

QUERIES = {
    "tables": f"""
        SELECT relname, relkind::text, relrowsecurity, relforcerowsecurity, pg_get_partkeydef(oid) AS partitioned,
               pg_get_expr(relpartbound, oid) AS bound, relowner::regrole::text AS owner, relacl::text AS grants
          FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
           AND relname {_OURS}""",
    "columns": f"""
        SELECT relname, attnum, attname, format_type(atttypid, atttypmod) AS type, attnotnull, attidentity::text,
               attgenerated::text, pg_get_expr(adbin, adrelid) AS fallback, attcollation::regcollation::text
          FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
          LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0 AND relname {_OURS}""",
    "constraints": f"""
        SELECT conrelid::regclass::text AS relation, conname, pg_get_constraintdef(oid) AS definition, convalidated
          FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text {_OURS}""",
    "indexes": f"""
        SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename {_OURS}""",
    "policies": """
        SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check FROM pg_policies""",
    "functions": """
        SELECT oid::regprocedure::text AS signature, prosrc, prosecdef, proconfig::text, proacl::text,
               proowner::regrole::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace""",
    "triggers": """
        SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal""",
    "schema grants": "SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'",
}


async def catalog(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every table, column, constraint, index, policy, function and grant."""
    connection = await asyncpg.connect(url)
    try:
        return {
            kind: sorted((tuple(row) for row in await connection.fetch(sql)), key=str) for kind, sql in QUERIES.items()
        }
    finally:
        await connection.close()


async def create_declared(url: str, metadata: MetaData, before: list[str], after: list[str]) -> None:
    """Make what the tables' modules declare, without a migration."""
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    async with engine.begin() as connection:
        for statement in before:
            await connection.execute(text(statement))
        await connection.run_sync(metadata.create_all)
        for statement in after:
            await connection.exec_driver_sql(statement)
    await engine.dispose()
