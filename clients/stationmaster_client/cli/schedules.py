"""stationmaster schedules: when tasks are due."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from stationmaster_client.cli import given
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit
from stationmaster_client.cli.output import age
from stationmaster_client.cli.tasks_shown import ahead, schedule_of, state_of
from stationmaster_client.names import last

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.text import Text
    from stationmaster.v1 import task_pb2

app = group("When tasks are due.")


@command(app, "list")
async def list_schedules(run: Run, limit: Limit = 200) -> None:
    """List tasks that have a schedule, the one that is due next first."""
    from stationmaster.v1 import task_pb2

    found = [task async for task in run.client.tasks.list(page_size=1000) if task.HasField("schedule")]
    found.sort(key=lambda task: (not task.HasField("next_fire_time"), task.next_fire_time.ToNanoseconds(), task.name))

    async def ordered() -> AsyncIterator[task_pb2.Task]:
        for task in found:
            yield task

    await show(
        run.out,
        ordered(),
        task_pb2.ListTasksResponse(),
        "tasks",
        limit=limit,
        columns=("TASK", "STATE", "SCHEDULE", "NEXT", "LAST", "FIRED#", "SKIPPED"),
        row=_row,
        empty="No task has a schedule. Give one to a task: stationmaster tasks update TASK --cron '30 7 * * MON-FRI'",
    )


@command(app, "preview")
async def preview(
    run: Run,
    subject: Annotated[
        str, typer.Argument(help="A task's id, or an expression: '30 7 * * MON-FRI', @daily.", metavar="[TASK|CRON]")
    ] = "",
    every: Annotated[str, typer.Option("--every", metavar="SPAN", help="Or how often: 90s, 5m, 2h.")] = "",
    time_zone: Annotated[str, typer.Option("--time-zone", metavar="ZONE", help="Of an expression; else UTC.")] = "",
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="How many times.")] = 10,
    after: Annotated[
        str, typer.Option("--after", metavar="TIME", help="Those after 2026-03-01, or +7d; now.", show_default=False)
    ] = "",
) -> None:
    """Show when a schedule is due next, in its time zone and in yours."""
    from stationmaster.v1 import task_pb2

    if bool(subject) == bool(every):
        raise CommandError("name a task, or give an expression ('30 7 * * *') or --every 90s")
    wanted: str | task_pb2.Schedule = subject
    zone = time_zone
    if every or " " in subject or subject.startswith("@"):
        wanted = task_pb2.Schedule(cron=subject, time_zone=time_zone)
        interval = given.span(every, "--every")
        if interval is not None:
            wanted.every.FromTimedelta(interval)
    elif time_zone:
        raise CommandError(f"{subject} has a time zone of its own: --time-zone goes with an expression")
    else:
        zone = (await run.client.tasks.get(subject)).schedule.time_zone
    answer = await run.client.tasks.preview(wanted, count=count, after=given.moment(after, "--after"))
    if run.out.as_json:
        run.out.json(answer)
        return
    run.out.print(answer.description, style="dim")
    _print_times(run, list(answer.times), zone or "UTC")


def _print_times(run: Run, times: list[Timestamp], zone_name: str) -> None:
    zone = _zone(zone_name)
    if all(_shown(time, zone) == _shown(time, None) for time in times):
        columns: tuple[str, ...] = (zone_name, "")
        rows: list[tuple[str, ...]] = [(_shown(time, None), ahead(time)) for time in times]
    else:
        columns = (zone_name, "HERE", "")
        rows = [(_shown(time, zone), _shown(time, None), ahead(time)) for time in times]
    run.out.table(columns, rows, empty="It is never due again.")


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC  # a zone that the server knows and this machine does not


def _shown(time: Timestamp, zone: tzinfo | None) -> str:
    """In a zone, or in this machine's."""
    return f"{time.ToDatetime(UTC).astimezone(zone):%a %Y-%m-%d %H:%M:%S %z}"


def _row(task: task_pb2.Task) -> tuple[str | Text, ...]:
    skipped = ", ".join(f"{count:,} {reason.lower()}" for reason, count in sorted(task.skip_counts.items()) if count)
    return (
        last(task.name),
        state_of(task),
        schedule_of(task.schedule),
        ahead(task.next_fire_time),
        age(task.last_fire_time),
        f"{task.fire_count:,}",
        skipped,
    )
