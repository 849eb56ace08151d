"""stationmaster sessions, continued: events, messages and turns."""

from __future__ import annotations

from typing import Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, Session, query
from stationmaster_client.cli.output import age, dollars, plain
from stationmaster_client.cli.search_modes import Hybrid, Meaning, chosen
from stationmaster_client.cli.sessions import app
from stationmaster_client.cli.transcript import Transcript, arguments, shorten
from stationmaster_client.names import last


@command(app, "watch")
async def watch(
    run: Run,
    session: Session,
    after: Annotated[int, typer.Option("--after", min=0, help="Begin after this event; 0: at the beginning.")] = 0,
    new: Annotated[bool, typer.Option("--new", help="Only what happens from now on.")] = False,
) -> None:
    """Follow a session's events, over lost connections, until it is terminated."""
    found = await run.client.sessions.get(await resolve.session(run.client, session))
    transcript = Transcript(run.out.console, run.out.errors if run.out.as_json else None, everything=True)
    start = found.last_sequence if new else after
    async with run.client.sessions.watch(found.name, start, on_interruption=transcript.interrupted) as events:
        async for event in events:
            if run.out.as_json:
                run.out.json(event, line=True)
            else:
                transcript.show(event)
    transcript.end_line()


@command(app, "messages")
async def messages(
    run: Run,
    session: Session,
    condition: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 200,
) -> None:
    """Show a session's messages, oldest first."""
    from stationmaster.v1 import event_pb2, session_pb2

    listing = run.client.sessions.messages(
        await resolve.session(run.client, session), **query(condition, order_by, limit)
    )
    if run.out.as_json:
        answer = session_pb2.ListMessagesResponse()
        await show(run.out, listing, answer, "messages", limit=limit, columns=(), row=lambda _: (), empty="")
        return
    count = 0
    async for message in listing:
        if (count := count + 1) > limit:
            run.out.note(f"There are more than {limit}: --limit shows more.")
            break
        role = plain(event_pb2.MessageRole.Name(message.role), "MESSAGE_ROLE")
        model = f" · {message.provenance.model}" if message.provenance.model else ""
        cut = " · cut off" if message.interrupted else ""
        run.out.print(f"{last(message.name)} {role}{model} · {age(message.create_time)}{cut}", style="bold")
        for part in message.parts:
            run.out.print(_text(part), style="dim" if part.HasField("thinking") else None)
        run.out.print()


def _text(part: object) -> str:
    from stationmaster.v1 import event_pb2

    assert isinstance(part, event_pb2.MessagePart)  # noqa: S101 - for the type checker; lazily imported
    if part.HasField("tool_call"):
        return f"⚙ {part.tool_call.tool} {arguments(part.tool_call.arguments)}"
    if part.HasField("tool_result"):
        return f"{'✗' if part.tool_result.is_error else '✓'} {part.tool_result.content}"
    return part.text or part.thinking


@command(app, "search")
async def search(
    run: Run,
    text: Annotated[str, typer.Argument(help='Words, "phrases", or and -not, as in a web search.', metavar="QUERY")],
    meaning: Meaning = False,
    hybrid: Hybrid = False,
    session: Annotated[str, typer.Option("--session", "-s", help="Only this session.")] = "",
    limit: Limit = 20,
) -> None:
    """Search messages by their words or by their meaning, best match first."""
    from stationmaster.v1 import event_pb2, session_pb2

    def row(hit: session_pb2.SearchMessagesResponse.Hit) -> tuple[str, ...]:
        found = hit.message
        return (
            resolve.short(found.name.partition("/messages/")[0]),
            last(found.name),
            plain(event_pb2.MessageRole.Name(found.role), "MESSAGE_ROLE"),
            age(found.create_time),
            shorten(hit.snippet),
        )

    mode = chosen(meaning, hybrid)
    parent = await resolve.session(run.client, session) if session else ""
    hits = run.client.sessions.search(text, session=parent, mode=mode, page_size=min(limit, 1000))
    await show(
        run.out,
        hits,
        session_pb2.SearchMessagesResponse(),
        "hits",
        limit=limit,
        columns=("SESSION", "MESSAGE#", "FROM", "WHEN", "TEXT"),
        row=row,
        empty="Nothing found.",
    )


@command(app, "turns")
async def turns(run: Run, session: Session, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List a session's turns, newest first."""
    from stationmaster.v1 import event_pb2, session_pb2

    def row(turn: session_pb2.Turn) -> tuple[str, ...]:
        return (
            resolve.short(turn.name),
            plain(event_pb2.TurnState.Name(turn.state), "TURN_STATE"),
            f"{turn.usage.input_tokens + turn.usage.output_tokens:,}",
            dollars(turn.usage.cost_micros),
            str(turn.usage.tool_calls),
            age(turn.create_time),
            turn.reason,
        )

    await show(
        run.out,
        run.client.sessions.turns(await resolve.session(run.client, session), **query(condition, order_by, limit)),
        session_pb2.ListTurnsResponse(),
        "turns",
        limit=limit,
        columns=("TURN", "STATE", "TOKENS#", "COST#", "TOOLS#", "BEGAN", "REASON"),
        row=row,
        empty="No turns yet.",
    )
