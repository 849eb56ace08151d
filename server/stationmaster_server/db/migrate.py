"""Brings a database to this program's schema; several servers may try at once, one does it."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from stationmaster_server.db.errors import NotMigrated

_LOCK = 0x53544D41  # any number of our own


def sqlalchemy_url(url: str) -> str:
    """The same database for SQLAlchemy, whose URLs name the driver."""
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


async def migrate(url: str) -> None:
    """Apply the revisions that are missing, under a lock of the database: a second server waits and finds none.

    NotMigrated when the login may not make what a revision needs, or the database is newer than this program.
    """
    engine = _engine(url)
    try:
        async with engine.connect() as connection:
            await connection.execute(sa.text(f"SELECT pg_advisory_lock({_LOCK})"))
            await connection.commit()
            await connection.run_sync(_upgrade)
            await connection.commit()
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != asyncpg.InsufficientPrivilegeError.sqlstate:
            raise
        raise NotMigrated(
            f"the database login may not do what the migration needs ({error.orig}): run `stationmaster-server migrate`"
            " with a login that owns the database and has CREATEROLE, or let an administrator create the roles"
            " stationmaster_app and stationmaster_system (NOLOGIN) and GRANT both to the login"
        ) from error
    finally:
        await engine.dispose()


async def pending(url: str) -> list[str]:
    """The revisions that the database lacks, oldest first."""
    engine = _engine(url)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(_pending)
    finally:
        await engine.dispose()


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(sqlalchemy_url(url), poolclass=NullPool)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _upgrade(connection: Connection) -> None:
    if not _pending(connection):
        return
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _pending(connection: Connection) -> list[str]:
    scripts = ScriptDirectory.from_config(_config())
    applied = MigrationContext.configure(connection).get_current_heads()
    connection.rollback()
    unknown = set(applied).difference(script.revision for script in scripts.walk_revisions())
    if unknown:
        raise NotMigrated(f"the database has revision {unknown.pop()}, which is newer than this program: update it")
    return [script.revision for script in scripts.iterate_revisions("heads", applied or "base")][::-1]
