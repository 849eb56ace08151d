"""From settings to a connected, migrated database: the embedded one, or the one that a URL names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import structlog

from stationmaster_server.config import DatabaseSettings, Settings, StartupError
from stationmaster_server.db.embedded.errors import EmbeddedPostgresError
from stationmaster_server.db.embedded.server import EmbeddedPostgres
from stationmaster_server.db.engine import Database
from stationmaster_server.db.errors import NotMigrated
from stationmaster_server.db.migrate import migrate, pending
from stationmaster_server.errors import Unavailable

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def database_url(settings: Settings) -> AsyncIterator[str]:
    """Yield the URL of the database, which runs meanwhile. Raises StartupError."""
    if settings.database.url is not None:
        yield settings.database.url.get_secret_value()
        return
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(EmbeddedPostgres(settings.data_folder))
        except EmbeddedPostgresError as error:
            raise StartupError(str(error)) from error
        except OSError as error:
            raise StartupError(
                f"data_folder {settings.data_folder}: {error.strerror or error} ({error.filename});"
                " choose a folder that this user may write (STATIONMASTER_DATA_FOLDER)"
            ) from error
        yield url


async def connect(url: str, settings: DatabaseSettings) -> Database:
    """Wait for the database, migrate it if that is wanted, and connect. Raises StartupError."""
    try:
        try:
            database = await _connect(url, settings)
        except NotMigrated:
            if not settings.migrate:
                raise
            await _migrate(url)
            return await _connect(url, settings)
        try:
            await _bring_up_to_date(url, settings)
        except BaseException:
            await database.close()
            raise
        return database
    except NotMigrated as error:
        raise StartupError(str(error)) from error
    except (Unavailable, TimeoutError) as error:
        waited = settings.connect_timeout.total_seconds()
        raise StartupError(
            f"the database at {place_of(url)} did not answer within {waited:g} s (database.connect_timeout):"
            f" {_why(error)}; is it running, and is database.url right?"
        ) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"asyncpg", "sqlalchemy"}:
            raise
        raise StartupError(f"the database at {place_of(url)} refuses: {error}; check database.url") from error


def _why(error: BaseException) -> str:
    """What the driver met, which callers are not told."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__} {cause}".strip()


def place_of(url: str) -> str:
    """Return where a database is, without user and password."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'a local socket'}{f':{parts.port}' if parts.port else ''}{parts.path}"


async def _connect(url: str, settings: DatabaseSettings) -> Database:
    return await Database.connect(
        url,
        pool_size=settings.pool_size,
        system_pool_size=settings.system_pool_size,
        connect_timeout=settings.connect_timeout,
    )


async def _bring_up_to_date(url: str, settings: DatabaseSettings) -> None:
    lacking = await pending(url)
    if not lacking:
        return
    if not settings.migrate:
        raise StartupError(
            f"the database lacks {len(lacking)} migrations ({', '.join(lacking)}) and database.migrate is off:"
            " run `stationmaster-server migrate`"
        )
    await _migrate(url)


async def _migrate(url: str) -> None:
    _log.info("migrating the database", database=place_of(url))
    await migrate(url)
