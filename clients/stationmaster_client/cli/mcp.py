"""stationmaster mcp: Stationmaster as an MCP server, for other agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.command import Run
from stationmaster_client.cli.errors import CommandError

if TYPE_CHECKING:
    from stationmaster_client.mcp_server.http import Listener

_PANEL = "Over HTTP"
_HOST, _PORT = "127.0.0.1", 8765


def _option(name: str, text: str, metavar: str | None = None) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(name, help=text, metavar=metavar, rich_help_panel=_PANEL)
    return found


async def mcp(
    run: Run,
    http: Annotated[bool, _option("--http", "Serve streamable HTTP, not stdio; callers bring their keys.")] = False,
    host: Annotated[str, _option("--host", "Address to listen on.")] = _HOST,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port.", rich_help_panel=_PANEL)] = _PORT,
    allow_host: Annotated[list[str], _option("--allow-host", "A name that clients reach it by.", "NAME")] = [],  # noqa: B006
    allow_origin: Annotated[list[str], _option("--allow-origin", "A web page that may call it.", "URL")] = [],  # noqa: B006
    certificate: Annotated[Path | None, _option("--tls-certificate", "PEM file of its certificate.")] = None,
    key: Annotated[Path | None, _option("--tls-key", "PEM file of its private key.")] = None,
    allow_plaintext: Annotated[bool, _option("--allow-plaintext", "Serve other hosts without TLS.")] = False,
) -> None:
    """Be an MCP server: other agents use sessions, agents and searches of Stationmaster as tools."""
    try:
        from stationmaster_client.mcp_server.caller import OneCaller
        from stationmaster_client.mcp_server.http import Listener
        from stationmaster_client.mcp_server.server import build
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed. Install: pip install 'stationmaster[mcp]'") from error
    if http:
        listener = Listener(host, port, certificate, key, allow_plaintext, allow_host, allow_origin)
        await _serve(run, listener)
    elif (host, port) != (_HOST, _PORT) or allow_host or allow_origin or certificate or key or allow_plaintext:
        raise CommandError("the options about how it is reached go with --http; without it, it speaks over stdio")
    else:
        await build(OneCaller(run.client)).run_stdio_async()


async def _serve(run: Run, listener: Listener) -> None:
    from stationmaster_client.mcp_server.http import serve

    await serve(run.client, listener, lambda url: run.out.note(f"MCP at {url}; Ctrl-C ends."))
