"""Runs Alembic. Imported only when there is something to migrate: a server at work has neither it nor SQLAlchemy."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

FOLDER = Path(__file__).parent
_LOCK = 0x53544D41  # any number of our own


def sqlalchemy_url(url: str) -> str:
    """The same database for SQLAlchemy, whose URLs name the driver."""
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


async def upgrade(url: str) -> None:
    """Apply the revisions that are missing, under a lock of the database: a second server waits and finds none.

    sqlalchemy.exc.DBAPIError for whatever the database refuses.
    """
    engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execute(sa.text(f"SELECT pg_advisory_lock({_LOCK})"))
            await connection.commit()
            await connection.run_sync(_upgrade)
            await connection.commit()
    finally:
        await engine.dispose()


def _upgrade(connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
