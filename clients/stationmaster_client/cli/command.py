"""Turns an async function into a command: connection, --json, errors and exit codes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from stationmaster_client.cli.errors import CommandError, ExitCode, exit_code, explain
from stationmaster_client.cli.options import require_text
from stationmaster_client.cli.output import Output

if TYPE_CHECKING:
    from stationmaster_client import Client

Body: TypeAlias = Callable[..., Awaitable[None]]
"""A command's function: the Run first, then its arguments and options."""

_PANEL = "Connection and output"
_COMMON: dict[str, Any] = {
    "as_json": Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.", rich_help_panel=_PANEL)],
    "target": Annotated[str, typer.Option("--target", metavar="HOST:PORT", help="The server.", rich_help_panel=_PANEL)],
    "context": Annotated[
        str, typer.Option("--context", help="A context of the configuration file.", rich_help_panel=_PANEL)
    ],
    "timeout": Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Deadline of each call.", rich_help_panel=_PANEL)
    ],
}
_LONGEST_SECONDS = 1_000_000
_DEFAULTS: dict[str, Any] = {"as_json": False, "target": "", "context": "", "timeout": 30.0}


@dataclass(frozen=True, slots=True)
class Run:
    """What a command works with."""

    client: Client
    out: Output


_HELP_NAMES = {"help_option_names": ["-h", "--help"]}


def group(text: str, **settings: Any) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(help=text, no_args_is_help=True, context_settings=_HELP_NAMES, **settings)


def command(app: typer.Typer, name: str, *, also: str = "", **settings: Any) -> Callable[[Body], Body]:
    """Add a function to `app`; its first parameter is the Run, the others are arguments and options.

    `also`: another name that is understood, and not shown.
    """

    def register(function: Body) -> Body:
        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[1:]
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS[key], annotation=annotation)
            for key, annotation in _COMMON.items()
        ]

        def invoke(**values: Any) -> None:
            shared = {key: values.pop(key) for key in _COMMON}

            def body(run: Run) -> Awaitable[None]:
                require_text(values.values())
                return function(run, **values)

            raise typer.Exit(execute(body, **shared))

        parameters = [*(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own), *common]
        vars(invoke)["__signature__"] = signature.replace(parameters=parameters, return_annotation=None)
        invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        invoke.__doc__ = function.__doc__
        app.command(name, context_settings=_HELP_NAMES, **settings)(invoke)
        if also:
            app.command(also, context_settings=_HELP_NAMES, hidden=True, **settings)(invoke)
        return function

    return register


def execute(body: Callable[[Run], Awaitable[None]], *, as_json: bool, target: str, context: str, timeout: float) -> int:
    """Run a command to its end and return the exit code."""
    from stationmaster_client import Client, ConfigurationError, StationmasterError

    out = Output(as_json=as_json)
    client: Client | None = None

    async def connected() -> None:
        nonlocal client
        if not 0 < timeout < _LONGEST_SECONDS:
            raise CommandError("--timeout is a number of seconds above 0")
        limit = timedelta(seconds=timeout)
        # A person waits: few attempts, so that a server that is not there is told of at once.
        client = Client.connect(target or None, context=context or None, timeout=limit, attempts=3)
        async with client:
            await body(Run(client, out))

    try:
        asyncio.run(connected())
    except StationmasterError as error:
        out.error(explain(error, client.connection if client else None))
        return exit_code(error)
    except (CommandError, ConfigurationError) as error:
        out.error(str(error).splitlines())
        return error.code if isinstance(error, CommandError) else ExitCode.USAGE
    except (KeyboardInterrupt, asyncio.CancelledError):
        return ExitCode.INTERRUPTED
    return ExitCode.OK
