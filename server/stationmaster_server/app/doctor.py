"""`stationmaster-server doctor`: says what would keep a server from working, and what to do about it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil

from stationmaster_server.agents.runtimes.claude.runtime import lacking
from stationmaster_server.app import pools
from stationmaster_server.app.agents import prices_of, provider_settings
from stationmaster_server.app.checking import check_named
from stationmaster_server.app.database import connect, database_url, place_of
from stationmaster_server.app.doctor_keys import encryption, private_key, signing
from stationmaster_server.app.embedding import embedding
from stationmaster_server.app.findings import Finding, Verdict
from stationmaster_server.app.local import Running, make_data_folder, running_server
from stationmaster_server.app.storage import WORKSPACES, bucket_of
from stationmaster_server.app.tasks import OURS
from stationmaster_server.config import Settings, StartupError, load
from stationmaster_server.config.storage import PlaceKind
from stationmaster_server.db.engine import Database
from stationmaster_server.db.errors import NotMigrated
from stationmaster_server.db.migrate import pending
from stationmaster_server.errors import StationmasterError, Unavailable
from stationmaster_server.rpc import tls
from stationmaster_server.rpc.port import claim
from stationmaster_server.tasks.kinds.plugins import find

_LITTLE_SPACE_BYTES, _NO_SPACE_BYTES = 5 * 1024**3, 512 * 1024**2


async def examine(config_file: Path | None, overrides: Mapping[str, Any], tell: Callable[[str], None]) -> bool:
    """Check everything, tell each finding as it is found; return whether a server would work."""
    healthy = True
    async for finding in _all_findings(config_file, overrides):
        healthy = healthy and finding.verdict is not Verdict.FAIL
        tell(str(finding))
    return healthy


async def _all_findings(config_file: Path | None, overrides: Mapping[str, Any]) -> AsyncIterator[Finding]:
    try:
        settings = load(config_file, overrides)
        make_data_folder(settings.data_folder)
    except StartupError as error:
        yield Finding(Verdict.FAIL, "settings", str(error))
        return
    try:
        check_named(settings)
    except StartupError as error:
        yield Finding(Verdict.FAIL, "settings", str(error))
    else:
        yield Finding(Verdict.OK, "settings", f"profile {settings.profile}, data folder {settings.data_folder}")
    for check in (_space, _files, private_key, _ports, _tls, _extras, _providers, _prices, embedding):
        for finding in check(settings):
            yield finding
    for finding in plugins():
        yield finding
    if settings.storage.place is PlaceKind.S3:
        yield await _bucket(settings)
    yield await _pools(settings)
    async for finding in _database(settings):
        yield finding


def _files(settings: Settings) -> Iterator[Finding]:
    if settings.database.url is not None and settings.storage.place is PlaceKind.LOCAL:
        text = f"servers on other hosts must share {settings.data_folder / WORKSPACES}, where the files of sessions are"
        yield Finding(Verdict.OK, "files", text)


async def _bucket(settings: Settings) -> Finding:
    objects = bucket_of(settings)
    try:
        await objects.probe()
    except StationmasterError as error:
        return Finding(Verdict.FAIL, "files", str(error))
    finally:
        await objects.close()
    return Finding(Verdict.OK, "files", f"the bucket {settings.storage.s3.bucket!r} can be written, read and listed")


def _space(settings: Settings) -> Iterator[Finding]:
    free = shutil.disk_usage(settings.data_folder).free
    text = f"{free / 1024**3:.1f} GiB free at {settings.data_folder}"
    if free < _NO_SPACE_BYTES:
        yield Finding(Verdict.FAIL, "disk", f"{text}: make room or set data_folder to another disk")
    else:
        yield Finding(Verdict.WARN if free < _LITTLE_SPACE_BYTES else Verdict.OK, "disk", text)


def _ports(settings: Settings) -> Iterator[Finding]:
    wanted = [("server.port", settings.server.host, settings.server.port)]
    if settings.admin.enabled:
        wanted.append(("admin.port", settings.admin.host, settings.admin.port))
    running = running_server(settings.data_folder)
    for name, host, port in wanted:
        try:
            claim(host, port, setting=name)
        except StartupError as error:
            yield _taken(name, port, running, error)
        else:
            yield Finding(Verdict.OK, "ports", f"{name} {port} is free")


def _taken(name: str, port: int, running: Running | None, error: StartupError) -> Finding:
    if running is None:
        return Finding(Verdict.FAIL, "ports", str(error))
    if port == running.port or port in running.admin_ports:
        return Finding(Verdict.OK, "ports", f"{name} {port} is used by this server, process {running.pid}")
    return Finding(Verdict.WARN, "ports", f"{error} (or is it this server, process {running.pid}?)")


def _tls(settings: Settings) -> Iterator[Finding]:
    server = settings.server
    if not server.tls.enabled:
        verdict = Verdict.OK if server.loopback else Verdict.WARN
        yield Finding(verdict, "tls", f"off; {server.host} is {'this host only' if server.loopback else 'plaintext'}")
        return
    try:
        tls.credentials(server.tls)
    except (StartupError, ValueError) as error:
        yield Finding(Verdict.FAIL, "tls", str(error))
    else:
        yield Finding(Verdict.OK, "tls", "mutual TLS" if server.tls.client_ca else "on")


def _extras(settings: Settings) -> Iterator[Finding]:
    if importlib.util.find_spec("uvloop") is not None:
        yield Finding(Verdict.OK, "extras", "uvloop is used")
    else:
        yield Finding(Verdict.WARN, "extras", "uvloop is missing: calls are a fifth slower")
    if settings.models.anthropic.api_key is not None and settings.models.claude.enabled:
        why = lacking()
        text = f"no session may use the runtime CLAUDE: {why}" if why else "the runtime CLAUDE is there"
        yield Finding(Verdict.OK, "extras", text)
    if settings.telemetry.otlp_endpoint:
        found = importlib.util.find_spec("opentelemetry.sdk") is not None
        text = "traces go to the collector" if found else "traces need: pip install 'stationmaster[otel]'"
        yield Finding(Verdict.OK if found else Verdict.FAIL, "extras", text)


def _providers(settings: Settings) -> Iterator[Finding]:
    names = [provider.name for provider in provider_settings(settings.models)]
    if names:
        yield Finding(Verdict.OK, "models", f"providers: {', '.join(names)}")
    else:
        demo = "only the built-in model demo is there" if settings.models.demo else "there is no model"
        yield Finding(Verdict.WARN, "models", f"{demo}: set ANTHROPIC_API_KEY, OPENAI_API_KEY or models.compatible")


def _prices(settings: Settings) -> Iterator[Finding]:
    prices = prices_of(settings.models)
    for provider in provider_settings(settings.models):
        for name in provider.models:
            model_id = f"{provider.name}:{name}"
            if prices.of(model_id) is None:
                text = f"what {model_id} costs is not known, models.unknown_price is charged: set models.prices"
                yield Finding(Verdict.WARN, "prices", text)


def plugins() -> Iterator[Finding]:
    """Kinds of tasks that plug-ins bring, and why others are left out."""
    for found in find(OURS):
        if found.kind is not None:
            yield Finding(Verdict.OK, "plug-ins", f"the kind of tasks {found.kind.name!r}")
        else:
            yield Finding(Verdict.WARN, "plug-ins", f"{found.point} is left out: {found.problem}")


async def _pools(settings: Settings) -> Finding:
    configured = settings.pools
    try:
        seconds = await pools.try_one(configured)
    except StationmasterError as error:
        return Finding(Verdict.FAIL, "pools", f"a process of the pool does not work: {error}")
    most = configured.processes * configured.memory * settings.server.processes
    text = f"a process started in {seconds:.1f} s; all of them may have {most / 1024**3:.1f} GiB of memory"
    there = psutil.virtual_memory().total
    if most > there:
        text += f", this machine has {there / 1024**3:.1f}: lower pools.memory or pools.processes"
    return Finding(Verdict.WARN if most > there else Verdict.OK, "pools", text)


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(database_url(settings))
            lacking = await _lacking(url)
            if lacking:
                text = f"{len(lacking)} migrations are pending: stationmaster-server migrate"
                by_itself = settings.database.migrate
                verdict = Verdict.WARN if by_itself else Verdict.FAIL
                yield Finding(verdict, "database", f"{text} (serve does it too)" if by_itself else text)
                return
            database = await connect(url, settings.database)
        except (StartupError, StationmasterError) as error:
            yield Finding(Verdict.FAIL, "database", str(error))
            return
        stack.push_async_callback(database.close)
        place = place_of(url) if settings.database.url else f"embedded in {settings.data_folder}"
        text = f"PostgreSQL {await _version(database)} ({place}), schema up to date, roles granted"
        yield Finding(Verdict.OK, "database", text)
        yield await encryption(database, settings)
        yield await signing(database, settings)


async def _lacking(url: str) -> list[str]:
    try:
        return await pending(url)
    except NotMigrated as error:
        raise StartupError(str(error)) from error
    except Unavailable as error:
        raise StartupError(
            f"the database at {place_of(url)} did not answer: is it running, and is database.url right?"
        ) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"asyncpg", "sqlalchemy"} and not isinstance(error, OSError):
            raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StartupError(f"the database at {place_of(url)} cannot be used ({reason}); check database.url") from error


async def _version(database: Database) -> str:
    async with database.system(autocommit=True) as tx:
        version: str = await tx.fetchval("SHOW server_version")
    return version.split()[0]
