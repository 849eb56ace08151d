"""stationmaster audit: who did what, and what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit, OrderBy, query
from stationmaster_client.cli.output import clean, moment, plain
from stationmaster_client.cli.transcript import Transcript, arguments

if TYPE_CHECKING:
    from rich.text import Text
    from stationmaster.v1 import audit_pb2

Filter = Annotated[
    str, typer.Option("--filter", "-f", metavar="EXPRESSION", help="For example 'outcome = DENIED' (AIP-160).")
]

app = group("Who did what, and what was refused.")

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


@command(app, "get")
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
