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

_NOW = ("KIND", "BLOCKED#", "QUEUED#", "OLDEST", "RUNNING#", "FAILED#")
_LAST_HOUR = ("OK", "FAILED", "CANCELLED")
_WIDE = 100

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


def shape(width: int) -> tuple[tuple[str, ...], int]:
    """The heads of the columns, on two lines where one has no room, and the space between columns."""
    between, gap = (" ", 2) if width >= _WIDE else ("\n", 1)
    return (*_NOW, *(f"{name}{between}1H#" for name in _LAST_HOUR)), gap


def _print(run: Run, stats: task_pb2.GetQueueStatsResponse, *, line: bool = False) -> None:
    if run.out.as_json:
        run.out.json(stats, line=line)
    else:
        heads, gap = shape(run.out.console.width)
        run.out.table(heads, map(row, stats.kinds), empty="Nothing waits, nothing runs, nothing failed.", gap=gap)


def _drawn(run: Run, stats: task_pb2.GetQueueStatsResponse, *, lost: bool) -> Group:
    from rich.console import Group
    from rich.text import Text

    warning = [Text(_LOST, "yellow")] if lost else []
    heads, gap = shape(run.out.console.width)
    return Group(run.out.grid(heads, map(row, stats.kinds), gap=gap), *warning)


def row(kind: task_pb2.GetQueueStatsResponse.KindStats) -> tuple[str, ...]:
    """A line of the table."""
    return (
        kind.kind,
        f"{kind.blocked_count:,}",
        f"{kind.queued_count:,}",
        age(kind.oldest_queued_time).removesuffix(" ago"),
        f"{kind.running_count:,}",
        f"{kind.failed_count:,}",
        f"{kind.succeeded_last_hour_count:,}",
        f"{kind.failed_last_hour_count:,}",
        f"{kind.cancelled_last_hour_count:,}",
    )
