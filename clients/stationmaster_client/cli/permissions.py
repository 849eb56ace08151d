"""stationmaster permissions: tool calls that wait for an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, query
from stationmaster_client.cli.output import age, plain
from stationmaster_client.cli.transcript import arguments, limit_line

if TYPE_CHECKING:
    from stationmaster.v1 import session_pb2

app = group("Tool calls that wait for an answer.")

Request = Annotated[str, typer.Argument(help="The request's name, or the end of its id.", metavar="REQUEST")]
OfSession = Annotated[str, typer.Option("--session", "-s", help="Only of this session.")]


@command(app, "list")
async def list_permissions(
    run: Run, session: OfSession = "", condition: Filter = "state = PENDING", limit: Limit = 50
) -> None:
    """List requests, by default those that wait for an answer (-f '' shows all)."""
    from stationmaster.v1 import event_pb2, session_pb2

    def row(request: session_pb2.PermissionRequest) -> tuple[str, ...]:
        return (
            resolve.short(request.name),
            resolve.short(request.name.partition("/permissionRequests/")[0]),
            plain(event_pb2.PermissionState.Name(request.state), "PERMISSION_STATE"),
            request.call.tool or request.limit.limit,
            arguments(request.call.arguments) if request.HasField("call") else limit_line(request.limit),
            age(request.create_time),
        )

    parent = await resolve.session(run.client, session) if session else "-"
    await show(
        run.out,
        run.client.permissions.list(parent, **query(condition, "", limit)),
        session_pb2.ListPermissionRequestsResponse(),
        "permission_requests",
        limit=limit,
        columns=("REQUEST", "SESSION", "STATE", "TOOL", "ARGUMENTS", "ASKED"),
        row=row,
        empty="Nothing waits for an answer.",
    )


@command(app, "watch")
async def watch(run: Run, session: OfSession = "") -> None:
    """Wait for requests and answer them here, one after the other (with --json: print each once)."""
    from stationmaster_client.cli.permission_watch import Watch

    if not run.out.as_json and not run.out.interactive:
        raise CommandError("there is no terminal to ask at: use --json, or permissions allow and deny")
    parent = await resolve.session(run.client, session) if session else "-"
    await Watch(run, parent).until_left()


@command(app, "allow")
async def allow(
    run: Run,
    request: Request,
    for_session: Annotated[bool, typer.Option("--session", help="And later calls of the tool in its session.")] = False,
    edit: Annotated[str, typer.Option("--arguments", metavar="JSON", help="Run it with these arguments.")] = "",
) -> None:
    """Let a call run."""
    name = await resolve.permission(run.client, request)
    say(run, await run.client.permissions.allow(name, for_session=for_session, arguments=_arguments(edit)))


@command(app, "deny")
async def deny(
    run: Run,
    request: Request,
    message: Annotated[str, typer.Option("--message", "-m", help="What the model is told.")] = "",
) -> None:
    """Refuse a call."""
    name = await resolve.permission(run.client, request)
    say(run, await run.client.permissions.deny(name, message))


def _arguments(text: str) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        edited = json.loads(text)
    except ValueError as error:
        raise CommandError(f"--arguments is not JSON: {error}") from error
    if not isinstance(edited, dict):
        raise CommandError("--arguments needs a JSON object")
    return edited


def say(run: Run, request: session_pb2.PermissionRequest) -> None:
    """Tell how a request stands."""
    from stationmaster.v1 import event_pb2

    if run.out.as_json:
        run.out.json(request)
    else:
        state = plain(event_pb2.PermissionState.Name(request.state), "PERMISSION_STATE")
        run.out.print(f"{request.call.tool or request.limit.limit} is {state}")
