"""stationmaster sessions: conversations and what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Filter, Limit, OrderBy, Session, pairs, query
from stationmaster_client.cli.output import age, dollars, moment, plain

if TYPE_CHECKING:
    from stationmaster.v1 import session_pb2

app = group("Conversations: make, look at, steer.")

Name = Annotated[str, typer.Option("--name", help="A name for people.")]
Labels = Annotated[list[str], typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated.")]
Reason = Annotated[str, typer.Option("--reason", help="Why.")]


def describe(run: Run, session: session_pb2.Session) -> None:
    """Print one session."""
    from stationmaster.v1 import session_pb2

    if run.out.as_json:
        run.out.json(session)
        return
    state = plain(session_pb2.SessionState.Name(session.state), "SESSION_STATE")
    usage = session.usage
    run.out.details(
        [
            ("session", session.name),
            ("name", session.display_name),
            ("state", f"{state} ({session.state_reason})" if session.state_reason else state),
            ("agent", session.agent),
            ("model", session.spec.model),
            ("tools", ", ".join(session.spec.tools)),
            ("labels", ", ".join(f"{key}={value}" for key, value in sorted(session.labels.items()))),
            ("messages", f"{session.message_count:,} ({session.last_sequence:,} events)"),
            ("used", f"{usage.input_tokens + usage.output_tokens:,} tokens {dollars(usage.cost_micros)}"),
            ("ran for", f"{usage.running_time.ToTimedelta().total_seconds():,.1f} s"),
            ("running turn", session.current_turn),
            ("forked from", session.parent_message or session.parent_session),
            ("created", moment(session.create_time)),
            ("changed", moment(session.update_time)),
        ]
    )


@command(app, "create")
async def create(
    run: Run,
    agent: Annotated[str, typer.Option("--agent", "-a", help="The agent to run.")] = "",
    model: Annotated[str, typer.Option("--model", help="A model to run without an agent.")] = "",
    tool: Annotated[list[str], typer.Option("--tool", help="With --model: a tool it may use, or a pattern.")] = [],  # noqa: B006
    name: Name = "",
    label: Labels = [],  # noqa: B006
) -> None:
    """Make a session of an agent, or of a bare model."""
    if bool(agent) == bool(model):
        raise CommandError("one of --agent and --model is needed (stationmaster agents list, ... agents models)")
    labels = pairs(label, "--label")
    made = await run.client.sessions.create(agent, model=model, tools=tool, display_name=name, labels=labels)
    describe(run, made)


@command(app, "list")
async def list_sessions(
    run: Run,
    condition: Filter = "",
    order_by: OrderBy = "update_time desc",
    limit: Limit = 50,
    everything: Annotated[bool, typer.Option("--all", help="Archived ones, too.")] = False,
) -> None:
    """List sessions, the last used first."""
    from stationmaster.v1 import session_pb2

    def row(session: session_pb2.Session) -> tuple[str, ...]:
        return (
            resolve.short(session.name),
            plain(session_pb2.SessionState.Name(session.state), "SESSION_STATE"),
            session.agent.removeprefix("agents/") or session.spec.model,
            f"{session.message_count:,}",
            age(session.update_time),
            session.display_name,
        )

    await show(
        run.out,
        run.client.sessions.list(show_archived=everything, **query(condition, order_by, limit)),
        session_pb2.ListSessionsResponse(),
        "sessions",
        limit=limit,
        columns=("SESSION", "STATE", "AGENT", "MESSAGES#", "CHANGED", "NAME"),
        row=row,
        empty="No sessions. Begin one: stationmaster chat",
    )


@command(app, "show", also="get")
async def get(run: Run, session: Session) -> None:
    """Show one session."""
    describe(run, await run.client.sessions.get(await resolve.session(run.client, session)))


@command(app, "update")
async def update(run: Run, session: Session, name: Name = "", label: Labels = []) -> None:  # noqa: B006
    """Change a session's name or labels (KEY= removes one)."""
    current = await run.client.sessions.get(await resolve.session(run.client, session))
    paths = []
    if name:
        current.display_name = name
        paths.append("display_name")
    for key, value in pairs(label, "--label").items():
        if value:
            current.labels[key] = value
        else:
            current.labels.pop(key, None)
        paths.append("labels")
    if not paths:
        raise CommandError("nothing to change: give --name or --label")
    describe(run, await run.client.sessions.update(current, sorted(set(paths))))


@command(app, "pause")
async def pause(run: Run, session: Session, reason: Reason = "") -> None:
    """Pause a session: it takes no message until it is resumed."""
    describe(run, await run.client.sessions.pause(await resolve.session(run.client, session), reason))


@command(app, "resume")
async def resume(run: Run, session: Session) -> None:
    """Resume a paused session."""
    describe(run, await run.client.sessions.resume(await resolve.session(run.client, session)))


@command(app, "fork")
async def fork(
    run: Run,
    session: Session,
    up_to: Annotated[int, typer.Option("--up-to", min=0, help="The last message to copy; 0: all.")] = 0,
    name: Name = "",
) -> None:
    """Make a new session from a session's messages, all or up to one."""
    parent = await resolve.session(run.client, session)
    message = f"{parent}/messages/{up_to}" if up_to else ""
    describe(run, await run.client.sessions.fork(parent, up_to_message=message, display_name=name))


@command(app, "terminate")
async def terminate(run: Run, session: Session, reason: Reason = "") -> None:
    """End a session for good. It can still be read and forked."""
    describe(run, await run.client.sessions.terminate(await resolve.session(run.client, session), reason))


@command(app, "archive")
async def archive(run: Run, session: Session) -> None:
    """Put a terminated session away."""
    describe(run, await run.client.sessions.archive(await resolve.session(run.client, session)))


@command(app, "cancel")
async def cancel(run: Run, session: Session) -> None:
    """Cancel the turn that runs. What it produced so far is kept."""
    from stationmaster.v1 import event_pb2

    found = await run.client.sessions.get(await resolve.session(run.client, session))
    if not found.current_turn:
        raise CommandError(f"no turn of {found.name} is running", ExitCode.CONFLICT)
    turn = await run.client.sessions.cancel(found.current_turn)
    run.out.done(turn, f"{turn.name} is {plain(event_pb2.TurnState.Name(turn.state), 'TURN_STATE')}")
