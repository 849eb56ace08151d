"""stationmaster queue: how much work waits, runs and failed."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.command import Run
from stationmaster_client.cli.output import age

if TYPE_CHECKING:
    from rich.console import Group
    from stationmaster.v1 import task_pb2

_COLUMNS = (
    *("KIND", "BLOCKED#", "QUEUED#", "OLDEST", "RUNNING#", "FAILED#"),
    *("OK 1H#", "FAILED 1H#", "CANCELLED 1H#"),
)


_LOST = "⚡ connection lost, trying again"


async def queue(
    run: Run,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again; Ctrl-C ends.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.2, metavar="SECONDS", help="How often, with --watch.")] = 2.0,
) -> None:
    """Show how much of the organization's work waits, runs and failed, by kind."""
    stats = await run.client.executions.stats()
    if watch:
        await _watch(run, stats, every)
    else:
        _print(run, stats)


async def _watch(run: Run, stats: task_pb2.GetQueueStatsResponse, every: float) -> None:
    """Show it again and again; a server that is away is waited for."""
    from rich.live import Live

    from stationmaster_client import errors

    console = run.out.console
    alive = console.is_terminal and not console.is_dumb_terminal and not run.out.as_json
    with Live(console=console, auto_refresh=False) if alive else nullcontext() as live:
        lost = False
        while True:
            if live is not None:
                live.update(_drawn(run, stats, lost=lost), refresh=True)
            elif not lost:
                _print(run, stats, line=True)
            await asyncio.sleep(every)
            before = lost
            try:
                stats, lost = await run.client.executions.stats(), False
            except errors.Unavailable:
                lost = True
            if live is None and lost != before:
                run.out.note(_LOST if lost else "↻ connected again", "yellow" if lost else "green")


def _print(run: Run, stats: task_pb2.GetQueueStatsResponse, *, line: bool = False) -> None:
    if run.out.as_json:
        run.out.json(stats, line=line)
    else:
        run.out.table(_COLUMNS, map(_row, stats.kinds), empty="Nothing waits, nothing runs, nothing failed.")


def _drawn(run: Run, stats: task_pb2.GetQueueStatsResponse, *, lost: bool) -> Group:
    from rich.console import Group
    from rich.text import Text

    warning = [Text(_LOST, "yellow")] if lost else []
    return Group(run.out.grid(_COLUMNS, map(_row, stats.kinds)), *warning)


def _row(kind: task_pb2.GetQueueStatsResponse.KindStats) -> tuple[str, ...]:
    return (
        kind.kind,
        f"{kind.blocked_count:,}",
        f"{kind.queued_count:,}",
        age(kind.oldest_queued_time),
        f"{kind.running_count:,}",
        f"{kind.failed_count:,}",
        f"{kind.succeeded_last_hour_count:,}",
        f"{kind.failed_last_hour_count:,}",
        f"{kind.cancelled_last_hour_count:,}",
    )
