"""Which revisions a database lacks, and how it gets them; several servers may try at once, one does it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import asyncpg

from stationmaster_server.db.errors import NotMigrated, translate

_VECTOR = (0, 8)
"""pgvector reads its index on, until enough rows of a tenant are found, since this version."""
_REVISIONS = Path(__file__).parent / "migrations" / "versions"


async def migrate(url: str) -> None:
    """Apply the revisions that are missing.

    NotMigrated when the login may not make what a revision needs, PostgreSQL lacks pgvector, or the database is newer
    than this program.
    """
    if not await pending(url):
        return
    has_vector = await _has_vector(url)
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
            + ("" if has_vector else "; an administrator must run CREATE EXTENSION vector in the database as well")
        ) from error


async def _has_vector(url: str) -> bool:
    """Whether the database has the extension already. NotMigrated when it cannot have it, or has it too old."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        there = await connection.fetchval("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
        ready = await connection.fetchval("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'")
    finally:
        await connection.close()
    version = there or ready
    if version is None:
        raise NotMigrated(
            "this PostgreSQL lacks the extension pgvector, by which documents and tasks are found: install it (package"
            f" postgresql-NN-pgvector or pgvector, image pgvector/pgvector), {_at_least()} or newer, and start again"
        )
    if tuple(int(part) for part in version.split(".")[:2]) < _VECTOR:
        raise NotMigrated(
            f"the extension pgvector is of version {version} here, {_at_least()} is needed: update its package, let an"
            " administrator run ALTER EXTENSION vector UPDATE in the database, and start again"
        )
    return there is not None


def _at_least() -> str:
    return ".".join(map(str, _VECTOR))


async def pending(url: str) -> list[str]:
    """The revisions that the database lacks, oldest first.

    Unavailable if it is away, NotMigrated if it is newer or was made by a checkout with another first schema.
    """
    try:
        applied, first = await _applied(url)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error
    known = revisions()
    if applied is not None and applied not in known:
        raise NotMigrated(f"the database has revision {applied}, which is newer than this program: update it")
    if first not in (first_schema(), None):  # a copy may be without comments
        raise NotMigrated(
            "the database was made by another checkout from before the first release, and its schema is not brought up"
            " to this one: begin with an empty database or data folder, or go on with the checkout that made it"
        )
    return known if applied is None else known[known.index(applied) + 1 :]


def revisions() -> list[str]:
    """Every revision of this program, oldest first: their files are named after them."""
    names = (re.match(r"(\d{4})_\w+\.py$", path.name) for path in _REVISIONS.iterdir())
    return sorted(name.group(1) for name in names if name)


def first_schema() -> str:
    """What tells the first schema of this program from others, which is rewritten until there is a release."""
    digest = hashlib.sha256((_REVISIONS / "0001_first.sql").read_bytes()).hexdigest()
    return f"first schema {digest[:16]}"


async def _applied(url: str) -> tuple[str | None, str | None]:
    """The newest revision that the database has, and which first schema it began with."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is None:
            return None, None
        applied: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
        first: str | None = await connection.fetchval("SELECT obj_description('alembic_version'::regclass)")
        return applied, first
    finally:
        await connection.close()
