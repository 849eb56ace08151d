"""Alembic's environment: runs inside the connection that `migrate.py`, or alembic's command line, gives it."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from stationmaster_server.db.all_tables import load
from stationmaster_server.db.migrations.run import sqlalchemy_url


def run(connection: Connection) -> None:
    """Run the revisions that are asked for, each in a transaction."""
    context.configure(connection=connection, target_metadata=load(), transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_run() -> None:
    """For alembic's own command line, which gives a URL instead of a connection."""
    engine = create_async_engine(
        sqlalchemy_url(context.config.get_main_option("sqlalchemy.url") or ""), poolclass=NullPool
    )
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    asyncio.run(connect_and_run())
