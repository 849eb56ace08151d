"""Asks a person for a permission, and gives the answer to the server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stationmaster_client.cli.output import clean
from stationmaster_client.cli.resolve import brief
from stationmaster_client.cli.terminal import ask
from stationmaster_client.cli.transcript import limit_line
from stationmaster_client.structs import values

if TYPE_CHECKING:
    from stationmaster.v1 import event_pb2, session_pb2

    from stationmaster_client import StationmasterError
    from stationmaster_client.cli.command import Run

_QUESTION = "  [y]es, for the [s]ession, [n]o, [e]dit? "
_LIMIT_QUESTION = "  [y]es, once more, [n]o, end the turn? "


async def ask_permission(
    run: Run,
    request: str,
    call: event_pb2.ToolCall,
    about: str = "",
    limit: event_pb2.LimitReached | None = None,
) -> session_pb2.PermissionRequest | None:
    """Show the call, or the limit that the turn waits at, and resolve the request as the person says.

    None when somebody else was first. `about` is shown below: whose it is, and until when an answer counts.
    Raises Left when the person says nothing.
    """
    from stationmaster_client import errors

    at_limit = limit is not None and bool(limit.limit)
    arguments = {} if at_limit else _show(run, call, about)
    try:
        if limit is not None and at_limit:
            return await _resolve_limit(run, request, limit, about)
        return await _resolve(run, request, arguments)
    except errors.FailedPrecondition as error:
        if error.reason != "PERMISSION_ALREADY_RESOLVED":
            raise
        run.out.note(f"  {_first_answer(error)}", "yellow")
        return None


def _first_answer(error: StationmasterError) -> str:
    """The server's words say how the request was answered."""
    return f"too late: {brief(error.message)}"


async def _resolve_limit(
    run: Run, request: str, limit: event_pb2.LimitReached, about: str
) -> session_pb2.PermissionRequest:
    run.out.note(f"■ {limit_line(limit)}", "yellow")
    if about:
        run.out.note(f"  {about}", "dim")
    while True:
        answer = ask(_LIMIT_QUESTION).strip().lower()
        if answer in ("y", "yes"):
            return await run.client.permissions.allow(request)
        if answer in ("n", "no"):
            return await run.client.permissions.deny(request)


def _show(run: Run, call: event_pb2.ToolCall, about: str) -> dict[str, Any]:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    arguments = values(call.arguments)
    body = Table.grid(padding=(0, 1))  # a value keeps to its column: no line of it can look like another argument
    body.add_column(style="dim", overflow="fold", max_width=40)
    body.add_column(overflow="fold")
    for key, value in arguments.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        body.add_row(Text(f"{clean(key)}:"), Text(clean(shown)))
    title = Text(f" {clean(call.tool)} asks for permission ", "bold")
    subtitle = Text(f" {clean(about)} ", "dim") if about else None
    run.out.errors.print(
        Panel(body, title=title, title_align="left", subtitle=subtitle, subtitle_align="left", border_style="yellow")
    )
    return arguments


async def _resolve(run: Run, request: str, arguments: dict[str, Any]) -> session_pb2.PermissionRequest:
    permissions = run.client.permissions
    while True:
        answer = ask(_QUESTION).strip().lower()
        if answer in ("y", "yes"):
            return await permissions.allow(request)
        if answer in ("s", "session"):
            return await permissions.allow(request, for_session=True)
        if answer in ("n", "no"):
            return await permissions.deny(request, ask("  what to tell the model (may be empty): "))
        if answer in ("e", "edit") and (edited := _edit(run, arguments)) is not None:
            return await permissions.allow(request, arguments=edited)


def _edit(run: Run, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Ask for new arguments; None when they are not a JSON object."""
    run.out.note(f"  now: {json.dumps(arguments, ensure_ascii=False)}")
    text = ask("  JSON: ").strip()
    try:
        edited = json.loads(text)
    except ValueError as error:
        run.out.note(f"  not JSON: {error}", "red")
        return None
    if not isinstance(edited, dict):
        run.out.note('  a JSON object is needed, such as {"path": "notes.txt"}', "red")
        return None
    return edited
