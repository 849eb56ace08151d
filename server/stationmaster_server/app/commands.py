"""What the commands of `stationmaster-server` do, once the settings are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import typer

from stationmaster_server.app.database import connect, database_url, place_of
from stationmaster_server.app.processes import Family, Origin, supervise
from stationmaster_server.app.root import App
from stationmaster_server.app.serving import serve
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.config import Settings, StartupError
from stationmaster_server.db.engine import Database
from stationmaster_server.identity import administration
from stationmaster_server.identity.bootstrap import KEY_FILE
from stationmaster_server.identity.keys import NewKey
from stationmaster_server.rpc.port import address_of


async def serve_one(settings: Settings) -> None:
    """Serve in this process."""

    def ready(app: App) -> None:
        _tell(settings, app.port, app.database_place, [app.admin_port])

    await serve(App(settings), ready)


async def serve_many(settings: Settings, config_file: Path | None, overrides: Mapping[str, Any]) -> None:
    """Serve in several processes."""

    def ready(family: Family) -> None:
        _tell(settings, family.port, database_place(settings, family.database_url), list(family.admin_ports))
        typer.echo(f"  processes   {', '.join(str(pid) for pid in family.pids)}")

    await supervise(settings, Origin(config_file, overrides), ready)


def database_place(settings: Settings, url: str) -> str:
    """Where the data is, for people."""
    return place_of(url) if settings.database.url else f"embedded PostgreSQL in {settings.data_folder}"


def _tell(settings: Settings, port: int, database: str, admin_ports: list[int]) -> None:
    """Print what somebody who started a server wants to know."""
    server, admin = settings.server, settings.admin
    tls = "mutual TLS" if server.tls.client_ca else "TLS" if server.tls.enabled else "plaintext"
    key = settings.data_folder / KEY_FILE
    typer.echo(f"stationmaster-server is serving ({settings.profile})")
    typer.echo(f"  listening   {address_of(server.host, port)} ({tls})")
    typer.echo(f"  database    {database}")
    typer.echo(f"  admin key   {key if key.exists() else 'none: stationmaster-server keys create makes one'}")
    if any(admin_ports):
        where = ", ".join(f"http://{address_of(admin.host, number)}/metrics" for number in admin_ports)
        typer.echo(f"  metrics     {where}")


async def migrate_database(settings: Settings) -> None:
    """Apply the migrations that the database lacks."""
    wanted = settings.database.model_copy(update={"migrate": True})
    async with database_url(settings) as url:
        database = await connect(url, wanted)
        await database.close()
        typer.echo(f"the database at {database_place(settings, url)} is up to date")


async def create_key(
    settings: Settings, name: str, user: str | None, organization: str | None, scopes: tuple[str, ...]
) -> None:
    """Make a key; print its secret alone to standard output, so that a script can take it."""
    if user and organization:
        raise StartupError("--user and --organization exclude each other: each says whose key it is")
    of = _id_of("organizations", organization) if organization else None
    new = NewKey(display_name=name, user_id=_id_of("users", user) if user else None, scopes=scopes)
    async with _database(settings) as (database, audit):
        created = await administration.create_key(database, audit, new, of)
    typer.echo(f"apiKeys/{created.key.id} of users/{created.key.user_id}; its secret is shown this once:", err=True)
    typer.echo(created.secret or "")


async def list_keys(settings: Settings) -> None:
    """Print a line for each key."""
    async with _database(settings) as (database, _):
        for key in await administration.list_keys(database):
            state = "revoked" if key.revoked_at else f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "valid"
            scopes = ",".join(key.scopes) or "role"
            typer.echo(f"apiKeys/{key.id}  {key.prefix}…  users/{key.user_id}  {state}  {scopes}  {key.display_name}")


async def revoke_key(settings: Settings, name: str) -> None:
    """Revoke a key."""
    async with _database(settings) as (database, audit):
        key = await administration.revoke(database, audit, _id_of("apiKeys", name))
    typer.echo(f"apiKeys/{key.id} is revoked; every server refuses it within a second")


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[tuple[Database, AuditLog]]:
    async with database_url(settings) as url:
        database = await connect(url, settings.database)
        audit = AuditLog(database)
        await audit.start()
        try:
            yield database, audit
        finally:
            await audit.close()
            await database.close()


def _id_of(collection: str, name: str) -> UUID:
    try:
        return UUID(name.removeprefix(f"{collection}/"))
    except ValueError:
        raise StartupError(f"{name!r} is no {collection}/{{id}}") from None
