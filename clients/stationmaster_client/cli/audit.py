"""stationmaster audit: who did what, and what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import audit_proofs, given, resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit, OrderBy, pairs, query
from stationmaster_client.cli.output import clean, moment, plain
from stationmaster_client.cli.transcript import Transcript, arguments

if TYPE_CHECKING:
    from rich.text import Text
    from stationmaster.v1 import audit_pb2

Filter = Annotated[
    str, typer.Option("--filter", "-f", metavar="EXPRESSION", help="For example 'outcome = DENIED' (AIP-160).")
]

app = group("Who did what, and what was refused; and the proof of it.")
audit_proofs.add_to(app)

_CATEGORIES = ("business", "security", "compliance")
_OUTCOMES = ("allowed", "denied", "failed")
_STYLES = {"denied": "yellow", "failed": "red"}


@command(app, "list")
async def list_events(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List audit events, newest first (-f 'outcome = DENIED')."""
    from stationmaster.v1 import audit_pb2

    await show(
        run.out,
        run.client.audit.list(**query(condition, order_by, limit)),
        audit_pb2.ListAuditEventsResponse(),
        "audit_events",
        limit=limit,
        columns=("WHEN", "OUTCOME", "ACTION", "ACTOR", "RESOURCE", "REASON"),
        row=_row,
        empty="No events.",
    )


@command(app, "search")
async def search(
    run: Run,
    actor: Annotated[
        str,
        typer.Option(
            "--actor", metavar="USER", help="Who did it: a user (name, end of the id, email address, me) or system."
        ),
    ] = "",
    action: Annotated[str, typer.Option("--action", metavar="ACTION", help="What was done: session.create.")] = "",
    resource: Annotated[str, typer.Option("--resource", metavar="NAME", help="What it was done to.")] = "",
    category: Annotated[str, typer.Option("--category", metavar="CATEGORY", help="security, business, …")] = "",
    outcome: Annotated[str, typer.Option("--outcome", metavar="OUTCOME", help="allowed, denied or failed.")] = "",
    condition: Filter = "",
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Not before, such as 2026-01-31.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Before.")] = "",
    order_by: OrderBy = "",
    limit: Limit = 50,
) -> None:
    """Search audit events by who, what, when and how it ended."""
    texts = {
        "actor": await resolve.actor(run.client, actor) if actor else "",
        "action": action,
        "resource": await resolve.resource(run.client, resource) if resource else "",
    }
    conditions = [f"{name} = {_quoted(text)}" for name, text in texts.items() if text]
    enums = {"category": category, "outcome": outcome}
    conditions += [f"{name} = {text.upper()}" for name, text in enums.items() if text]
    conditions += [f"create_time >= {_quoted(_utc(since))}"] if since else []
    conditions += [f"create_time < {_quoted(_utc(until))}"] if until else []
    conditions += [f"({condition})"] if condition else []
    await list_events(run, " AND ".join(conditions), order_by, limit)


@command(app, "record")
async def record(
    run: Run,
    action: Annotated[str, typer.Argument(help="What was done, such as custom.invoice.approve.", metavar="ACTION")],
    resource: Annotated[str, typer.Argument(help="What it was done to.", metavar="RESOURCE")] = "",
    category: Annotated[str, typer.Option("--category", help="business, security or compliance.")] = "business",
    outcome: Annotated[str, typer.Option("--outcome", help="allowed, denied or failed.")] = "allowed",
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
    details: Annotated[
        list[str] | None, typer.Option("--detail", "-d", metavar="NAME=VALUE", help="More; may be repeated.")
    ] = None,
) -> None:
    """Write an event of your own into the trail."""
    from stationmaster.v1 import audit_pb2

    if category.lower() not in _CATEGORIES:
        raise CommandError(f"--category {category}: write business, security or compliance")
    if outcome.lower() not in _OUTCOMES:
        raise CommandError(f"--outcome {outcome}: write allowed, denied or failed")
    of = audit_pb2.AuditCategory.Value(f"AUDIT_CATEGORY_{category.upper()}")
    ended = audit_pb2.AuditOutcome.Value(f"AUDIT_OUTCOME_{outcome.upper()}")
    event = await run.client.audit.record(
        action, resource, category=of, outcome=ended, reason=reason, details=pairs(details or [], "--detail")
    )
    if run.out.as_json:
        run.out.json(event)
    else:
        run.out.print(event.name)


@command(app, "stats")
async def stats(
    run: Run,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Default: 30 days ago.")] = "",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Default: now.")] = "",
) -> None:
    """Count what happened, by category, outcome, action and actor."""
    from datetime import datetime

    start, end = (datetime.fromisoformat(_utc(text)) if text else None for text in (since, until))
    found = await run.client.audit.stats(start, end)
    if run.out.as_json:
        run.out.json(found)
        return
    run.out.details(
        [
            ("span", f"{moment(found.start_time)} to {moment(found.end_time)}"),
            ("events", str(found.total)),
            ("tree", f"{found.tree_size} events, {found.checkpoint_size} under a checkpoint"),
            ("oldest", moment(found.oldest_time)),
        ]
    )
    kinds = [("category", found.categories), ("outcome", found.outcomes), ("action", found.actions)]
    rows = [(kind, each.key, str(each.count)) for kind, counts in kinds for each in counts]
    rows += [("actor", resolve.brief(each.key), str(each.count)) for each in found.actors]
    run.out.table(("BY", "WHAT", "EVENTS#"), rows, empty="No events.")


@command(app, "show", also="get")
async def get(run: Run, event: Annotated[str, typer.Argument(help="The event's name or id.", metavar="EVENT")]) -> None:
    """Show one audit event."""
    from stationmaster.v1 import audit_pb2

    found = await run.client.audit.get(event)
    if run.out.as_json:
        run.out.json(found)
        return
    run.out.details(
        [
            ("event", found.name),
            ("sequence", str(found.sequence)),
            ("when", moment(found.create_time)),
            ("category", plain(audit_pb2.AuditCategory.Name(found.category), "AUDIT_CATEGORY")),
            ("action", found.action),
            ("outcome", plain(audit_pb2.AuditOutcome.Name(found.outcome), "AUDIT_OUTCOME")),
            ("actor", found.actor),
            ("on behalf of", found.on_behalf_of),
            ("key", found.api_key),
            ("method", found.method),
            ("resource", found.resource),
            ("reason", found.reason),
            ("request", found.request_id),
            ("peer", found.peer),
            ("details", arguments(found.details) if found.HasField("details") else ""),
        ]
    )


@command(app, "tail")
async def tail(
    run: Run,
    condition: Filter = "",
    after: Annotated[
        int, typer.Option("--after", min=0, show_default="now", help="Begin after the event of this sequence.")
    ] = 0,
) -> None:
    """Follow the audit trail as it is written, over lost connections."""
    from rich.text import Text

    transcript = Transcript(run.out.console, run.out.notes)
    stream = run.client.audit.watch(
        after, condition=condition, only_new=not after, on_interruption=transcript.interrupted
    )
    run.out.note("Waiting for audit events; Ctrl-C ends.")
    async with stream as events:
        async for event in events:
            transcript.connected()
            if run.out.as_json:
                run.out.json(event, line=True)
            else:
                run.out.print(Text("  ").join([Text(str(event.sequence), "dim"), *map(_text, _row(event))]))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _utc(text: str) -> str:
    from datetime import UTC, datetime

    if text[:1] in ("+", "-") and (ahead := given.moment(text, "--since or --until")) is not None:
        return ahead.isoformat()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"{text!r} is no time, such as 2026-01-31 or 2026-01-31T12:00+01:00") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _text(cell: str | Text) -> Text:
    from rich.text import Text

    return Text(clean(cell)) if isinstance(cell, str) else cell


def _row(event: audit_pb2.AuditEvent) -> tuple[str | Text, ...]:
    from rich.text import Text
    from stationmaster.v1 import audit_pb2

    outcome = plain(audit_pb2.AuditOutcome.Name(event.outcome), "AUDIT_OUTCOME")
    styled = Text(outcome, _STYLES.get(outcome, "green"))
    who, what = resolve.brief(event.actor), resolve.brief(event.resource)
    return moment(event.create_time), styled, event.action, who, what, event.reason
