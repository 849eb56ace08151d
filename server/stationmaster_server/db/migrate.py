"""Which revisions a database lacks, and how it gets them; several servers may try at once, one does it."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg

from stationmaster_server.db.errors import NotMigrated, translate

_REVISIONS = Path(__file__).parent / "migrations" / "versions"


async def migrate(url: str) -> None:
    """Apply the revisions that are missing.

    NotMigrated when the login may not make what a revision needs, or the database is newer than this program.
    """
    if not await pending(url):
        return
    from sqlalchemy.exc import DBAPIError

    from stationmaster_server.db.migrations.run import upgrade

    try:
        await upgrade(url)
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != asyncpg.InsufficientPrivilegeError.sqlstate:
            raise
        raise NotMigrated(
            f"the database login may not do what the migration needs ({error.orig}): run `stationmaster-server migrate`"
            " with a login that owns the database and has CREATEROLE, or let an administrator create the roles"
            " stationmaster_app and stationmaster_system (NOLOGIN) and GRANT both to the login"
        ) from error


async def pending(url: str) -> list[str]:
    """The revisions that the database lacks, oldest first; Unavailable if it is away, NotMigrated if it is newer."""
    try:
        applied = await _applied(url)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error
    known = revisions()
    if applied is not None and applied not in known:
        raise NotMigrated(f"the database has revision {applied}, which is newer than this program: update it")
    return known if applied is None else known[known.index(applied) + 1 :]


def revisions() -> list[str]:
    """Every revision of this program, oldest first: their files are named after them."""
    names = (re.match(r"(\d{4})_\w+\.py$", path.name) for path in _REVISIONS.iterdir())
    return sorted(name.group(1) for name in names if name)


async def _applied(url: str) -> str | None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is None:
            return None
        applied: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        return applied
    finally:
        await connection.close()
