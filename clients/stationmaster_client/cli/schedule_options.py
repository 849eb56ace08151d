"""Options that say when a task is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import given
from stationmaster_client.cli.errors import CommandError

if TYPE_CHECKING:
    from stationmaster.v1 import task_pb2

_OVERLAPS = ("skip", "buffer-one", "allow-all", "cancel-other")
Cron = Annotated[str, typer.Option("--cron", metavar="EXPRESSION", help="When it is due: '30 7 * * MON-FRI', @daily.")]
Every = Annotated[str, typer.Option("--every", metavar="SPAN", help="Or how often: 90s, 5m, 2h.")]
TimeZone = Annotated[str, typer.Option("--time-zone", metavar="ZONE", help="Of --cron: Europe/Berlin; else UTC.")]
Overlap = Annotated[
    str,
    typer.Option(
        "--overlap", metavar="|".join(_OVERLAPS), help="When the one before has not ended; else it is skipped."
    ),
]
CatchUp = Annotated[str, typer.Option("--catch-up", metavar="SPAN", help="How late it may begin, after an outage; 1h.")]


def set_schedule(
    task: task_pb2.Task, cron: str, every: str, time_zone: str, overlap: str = "", catch_up: str = ""
) -> None:
    """Put the schedule that is given in the place of the old one's times; the rest of it stays."""
    from stationmaster.v1 import task_pb2

    if cron and every:
        raise CommandError("--cron and --every exclude each other")
    if cron:
        task.schedule.ClearField("every")
        task.schedule.cron = cron
    interval = given.span(every, "--every")
    if interval is not None:
        task.schedule.ClearField("cron")
        task.schedule.every.FromTimedelta(interval)
    for option, text in (("--time-zone", time_zone), ("--overlap", overlap), ("--catch-up", catch_up)):
        if text and not task.HasField("schedule"):
            raise CommandError(f"{option} is of a schedule: give --cron as well")
    if time_zone:
        task.schedule.time_zone = time_zone
    if overlap:
        if overlap not in _OVERLAPS:
            raise CommandError(f"--overlap {overlap!r}: write one of {', '.join(_OVERLAPS)}")
        policy = f"OVERLAP_POLICY_{overlap.upper().replace('-', '_')}"
        task.schedule.overlap = task_pb2.OverlapPolicy.Value(policy)
    late = given.span(catch_up, "--catch-up")
    if late is not None:
        task.schedule.catch_up.FromTimedelta(late)
