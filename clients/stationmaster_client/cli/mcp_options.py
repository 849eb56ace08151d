"""Options that say what an MCP server is; secrets come from the environment or a file, never from the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.options import pairs

if TYPE_CHECKING:
    from stationmaster.v1 import mcp_pb2

_PANEL = "How it is reached"


def _option(name: str, text: str, metavar: str | None = None) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(name, help=text, metavar=metavar, rich_help_panel=_PANEL)
    return found


Command = Annotated[str, _option("--command", "The program of a server over stdio.", "PROGRAM")]
Arguments = Annotated[
    list[str], _option("--argument", "An argument of the program; may be repeated. Before a dash: --argument=-x.")
]
Url = Annotated[str, _option("--url", "The URL of a server over streamable HTTP.")]
Environment = Annotated[
    list[str],
    _option("--env", "A variable for the program, with your environment's value of it (or of FROM).", "NAME[=FROM]"),
]
Headers = Annotated[
    list[str], _option("--header", "A header for the URL, with the value of your environment's FROM.", "NAME=FROM")
]
Credentials = Annotated[
    list[str],
    _option(
        "--credential",
        "A variable or header with a credential's secret, which the server puts in: x-key='{credentials/x}'.",
        "NAME=TEXT",
    ),
]
HeaderFile = Annotated[Path | None, _option("--header-file", "A file of headers, one `Name: value` a line.", "FILE")]
Organization = Annotated[
    bool, typer.Option("--organization", help="The organization's server of this name, not the nearest.")
]
Allowed = Annotated[
    list[str], typer.Option("--allow-tool", metavar="PATTERN", help="Only these of its tools can be used; '*' for all.")
]
Idempotent = Annotated[
    list[str],
    typer.Option(
        "--idempotent", metavar="PATTERN", help="Tools that may be called again after a lost answer; '' for none."
    ),
]
TRUST_HELP = "Believe what the server says of its tools: read-only ones run without asking."
Limit = Annotated[
    float | None, typer.Option("--call-timeout", min=1, metavar="SECONDS", help="How long a call may take.")
]
Patience = Annotated[
    float | None, typer.Option("--connect-timeout", min=1, metavar="SECONDS", help="How long connecting may take.")
]


def apply_transport(
    server: mcp_pb2.McpServer,
    command: str,
    arguments: list[str],
    url: str,
    environment: list[str],
    headers: list[str],
    header_file: Path | None,
    credentials: list[str],
) -> None:
    """Put how it is reached over what is there."""
    if command and url:
        raise CommandError("a server has a --command or a --url, not both")
    if command:
        server.stdio.command = command
    if url:
        server.http.url = url
    kind = server.WhichOneof("transport")
    if (arguments or environment) and kind != "stdio":
        raise CommandError("--argument and --env are for a server with a --command")
    if (headers or header_file) and kind != "http":
        raise CommandError("--header and --header-file are for a server with a --url")
    if arguments:
        server.stdio.arguments[:] = arguments
    named = pairs(credentials, "--credential")
    if named and kind == "stdio":
        server.stdio.credential_environment.update(named)
    elif named:
        server.http.credential_headers.update(named)
    for text in environment:
        name, value = _from_environment(text, "--env")
        server.stdio.environment[name] = value
    for name, value in _lines(header_file) if header_file else ():
        server.http.headers[name] = value
    for text in headers:
        if "=" not in text:
            raise CommandError("--header takes NAME=FROM, where FROM is a variable of your environment")
        name, value = _from_environment(text, "--header")
        server.http.headers[name] = value


def _from_environment(text: str, option: str) -> tuple[str, str]:
    name, _, source = text.partition("=")
    value = os.environ.get(source or name)
    if not value:
        # What was given may be the secret itself: it is not repeated.
        raise CommandError(
            f"{option} {name}: there is no such variable in your environment. "
            "Give the name of a variable that holds the value, never the value itself"
        )
    return name, value


def _lines(file: Path) -> list[tuple[str, str]]:
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CommandError(f"{file} cannot be read: {why}") from error
    found = []
    for number, line in enumerate(lines, 1):
        name, colon, value = line.partition(":")
        if line.strip() and not (colon and name.strip() and value.strip()):
            raise CommandError(f"{file}, line {number}: `Name: value` is expected")
        if line.strip():
            found.append((name.strip(), value.strip()))
    return found
