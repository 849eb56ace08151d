"""stationmaster mcp-servers: where agents get more tools from."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import mcp_options as given
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.mcp_shown import describe_check, describe_server, level_of, reached_by
from stationmaster_client.cli.options import Filter, Limit, OrderBy, query
from stationmaster_client.cli.output import age
from stationmaster_client.names import last

if TYPE_CHECKING:
    from stationmaster.v1 import mcp_pb2

app = group("MCP servers: where agents get more tools from.")

Server = Annotated[str, typer.Argument(help="The server's id.", metavar="SERVER")]
Name = Annotated[str, typer.Option("--name", help="A name for people.")]
Description = Annotated[str, typer.Option("--description", help="What it is for.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")]

_CHANGEABLE = (
    *("display_name", "description", "stdio", "http", "disabled", "allowed_tools", "idempotent_tools"),
    *("trust_annotations", "call_timeout", "connect_timeout"),
)


@command(app, "add")
async def add(
    run: Run,
    server_id: Annotated[str, typer.Argument(help="An id of your choice.", metavar="ID")],
    program: given.Command = "",
    argument: given.Arguments = [],  # noqa: B006
    url: given.Url = "",
    env: given.Environment = [],  # noqa: B006
    header: given.Headers = [],  # noqa: B006
    header_file: given.HeaderFile = None,
    credential: given.Credentials = [],  # noqa: B006
    organization: Annotated[bool, typer.Option("--organization", help="For all users, not for you alone.")] = False,
    allow_tool: given.Allowed = [],  # noqa: B006
    idempotent: given.Idempotent = [],  # noqa: B006
    trust_annotations: Annotated[bool, typer.Option("--trust-annotations", help=given.TRUST_HELP)] = False,
    call_timeout: given.Limit = None,
    connect_timeout: given.Patience = None,
    name: Name = "",
    description: Description = "",
    dry_run: DryRun = False,
) -> None:
    """Register an MCP server: a program that is run beside Stationmaster, or a URL."""
    from stationmaster.v1 import mcp_pb2

    if not program and not url:
        raise CommandError("how is it reached? --command PROGRAM or --url URL")
    server = mcp_pb2.McpServer(trust_annotations=trust_annotations)
    if organization:
        server.level = mcp_pb2.MCP_LEVEL_ORGANIZATION
    given.apply_transport(server, program, argument, url, env, header, header_file, credential)
    _apply(server, name, description, allow_tool, idempotent, call_timeout, connect_timeout)
    describe_server(run.out, await run.client.mcp.register(server_id, server, validate_only=dry_run))


@command(app, "update")
async def update(
    run: Run,
    server: Server,
    program: given.Command = "",
    argument: given.Arguments = [],  # noqa: B006
    url: given.Url = "",
    env: given.Environment = [],  # noqa: B006
    header: given.Headers = [],  # noqa: B006
    header_file: given.HeaderFile = None,
    credential: given.Credentials = [],  # noqa: B006
    drop: Annotated[list[str], typer.Option("--drop", metavar="NAME", help="A variable or header to remove.")] = [],  # noqa: B006
    organization: given.Organization = False,
    allow_tool: given.Allowed = [],  # noqa: B006
    idempotent: given.Idempotent = [],  # noqa: B006
    trust_annotations: Annotated[
        bool | None, typer.Option("--trust-annotations/--distrust-annotations", help=given.TRUST_HELP)
    ] = None,
    disabled: Annotated[bool | None, typer.Option("--disable/--enable", help="Whether it can be used.")] = None,
    call_timeout: given.Limit = None,
    connect_timeout: given.Patience = None,
    name: Name = "",
    description: Description = "",
    dry_run: DryRun = False,
) -> None:
    """Change a server. Lists that are given replace the old ones; secrets that are not given stay."""
    current = await run.client.mcp.get(server, level=level(organization))
    before = type(current).FromString(current.SerializeToString())
    given.apply_transport(current, program, argument, url, env, header, header_file, credential)
    for secret in drop:
        places = [current.stdio.environment, current.stdio.credential_environment]
        if current.HasField("http"):
            places = [current.http.headers, current.http.credential_headers]
        found = [place for place in places if secret in place]
        if not found:
            raise CommandError(f"{current.name} has no variable or header {secret}")
        for place in found:
            del place[secret]
    _apply(current, name, description, allow_tool, idempotent, call_timeout, connect_timeout)
    if trust_annotations is not None:
        current.trust_annotations = trust_annotations
    if disabled is not None:
        current.disabled = disabled
    kind = current.WhichOneof("transport")
    paths = [path for path in _CHANGEABLE if path not in ("stdio", "http") or path == kind]
    changed = [path for path in paths if getattr(current, path) != getattr(before, path)]
    if not changed:
        raise CommandError("nothing to change: give options")
    describe_server(run.out, await run.client.mcp.update(current, changed, validate_only=dry_run))


@command(app, "list")
async def list_servers(
    run: Run,
    hidden: Annotated[bool, typer.Option("--all", help="Those behind a nearer one of their name, too.")] = False,
    condition: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 50,
) -> None:
    """List the servers that you may use: yours, your organization's, and the built-in ones."""
    from stationmaster.v1 import mcp_pb2

    def row(server: mcp_pb2.McpServer) -> tuple[str, ...]:
        state = "disabled" if server.disabled else "enabled"
        return (
            last(server.name),
            level_of(server),
            reached_by(server),
            state,
            age(server.update_time),
            server.display_name,
        )

    await show(
        run.out,
        run.client.mcp.list(show_hidden=hidden, **query(condition, order_by, limit)),
        mcp_pb2.ListMcpServersResponse(),
        "mcp_servers",
        limit=limit,
        columns=("SERVER", "LEVEL", "REACHED BY", "STATE", "CHANGED", "NAME"),
        row=row,
        empty="No MCP servers. Add one: stationmaster mcp-servers add docs --url https://example.com/mcp",
    )


@command(app, "show", also="get")
async def get(run: Run, server: Server, organization: given.Organization = False) -> None:
    """Show one server; of its secrets only the names."""
    describe_server(run.out, await run.client.mcp.get(server, level=level(organization)))


@command(app, "remove")
async def remove(run: Run, server: Server, organization: given.Organization = False) -> None:
    """Delete a server and close its sessions."""
    from google.protobuf.empty_pb2 import Empty

    await run.client.mcp.delete(server, level=level(organization))
    run.out.done(Empty(), f"mcpServers/{last(server)} is deleted")


@command(app, "check")
async def check(run: Run, server: Server, organization: given.Organization = False) -> None:
    """Connect to a server and say how it is: 7 when it cannot be used."""
    found = await run.client.mcp.check(server, level=level(organization))
    if run.out.as_json:
        run.out.json(found)
    elif found.healthy:
        describe_check(run.out, found)
    if not found.healthy:
        raise CommandError(found.problem, ExitCode.UNAVAILABLE)


def level(organization: bool) -> mcp_pb2.McpLevel.ValueType:
    """The organization's, or the nearest."""
    from stationmaster.v1 import mcp_pb2

    return mcp_pb2.MCP_LEVEL_ORGANIZATION if organization else mcp_pb2.MCP_LEVEL_UNSPECIFIED


def _apply(
    server: mcp_pb2.McpServer,
    name: str,
    description: str,
    allowed: list[str],
    idempotent: list[str],
    call_timeout: float | None,
    connect_timeout: float | None,
) -> None:
    """Put what the options say over what is there."""
    server.display_name = name or server.display_name
    server.description = description or server.description
    if allowed:
        server.allowed_tools[:] = filter(None, allowed)
    if idempotent:
        server.idempotent_tools[:] = filter(None, idempotent)
    if call_timeout:
        server.call_timeout.FromTimedelta(timedelta(seconds=call_timeout))
    if connect_timeout:
        server.connect_timeout.FromTimedelta(timedelta(seconds=connect_timeout))
