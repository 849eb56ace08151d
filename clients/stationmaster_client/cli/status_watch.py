"""stationmaster status --watch: how the installation is, and its background services, drawn again and again."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING

from stationmaster_client.cli.command import Run
from stationmaster_client.cli.services_shown import columns, row
from stationmaster_client.cli.status_shown import drawn, show_system

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from stationmaster.v1 import maintenance_pb2

    from stationmaster_client.stream import Interruption

_LOST = "connection lost"


class Board:
    """What is known, and whether the connection is there."""

    def __init__(self, run: Run, live: Live | None) -> None:
        self._run = run
        self._live = live
        self._services: dict[str, maintenance_pb2.BackgroundService] = {}
        self._status: maintenance_pb2.SystemStatus | None = None
        self._lost = ""
        """What is wrong, if nothing comes."""

    def service(self, service: maintenance_pb2.BackgroundService) -> None:
        """One has changed."""
        self._services[service.name] = service
        self._draw()

    def status(self, status: maintenance_pb2.SystemStatus) -> None:
        """Something has; without a terminal it is printed."""
        self._status = status
        if self._lost:
            again = "↻ connected again" if self._lost == _LOST else "↻ it answers again"
            self._lost = ""
            self._run.out.note(again, "green")
        if self._live is not None:
            self._draw()
        elif self._run.out.as_json:
            self._run.out.json(status, line=True)
        else:
            show_system(self._run.out, status)
            self._run.out.print()

    def lost(self, interruption: Interruption) -> None:
        """The connection broke, or the server is there and cannot tell, as when its database is away."""
        error = interruption.error
        why = error.message.partition(";")[0] if error.reason else _LOST
        if why != self._lost and self._live is None:
            self._run.out.note(_trying(why), "yellow")
        self._lost = why
        self._draw()

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._drawn(), refresh=True)

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        out, width = self._run.out, self._run.out.console.width
        lines: list[RenderableType] = [] if self._status is None else [drawn(out, self._status)]
        if self._services:
            known = (row(service, width) for service in sorted(self._services.values(), key=_worst_first))
            lines += ["", out.grid(columns(width), known, gap=1)]
        return Group(*lines, *([Text(_trying(self._lost), "yellow")] if self._lost else []))


def _trying(why: str) -> str:
    return f"⚡ {why}, trying again"


def _worst_first(service: maintenance_pb2.BackgroundService) -> tuple[int, str]:
    """A screen may be too short for all: those that somebody should look at come first."""
    from stationmaster.v1 import maintenance_pb2

    well = (maintenance_pb2.BACKGROUND_SERVICE_STATE_IDLE, maintenance_pb2.BACKGROUND_SERVICE_STATE_RUNNING)
    return (0 if service.state in well else -service.state), service.name


async def watch_status(run: Run, every: timedelta) -> None:
    """Until somebody ends it; a server that is away is waited for."""
    from rich.live import Live

    console = run.out.console
    alive = console.is_terminal and not console.is_dumb_terminal and not run.out.as_json
    with Live(console=console, auto_refresh=False) if alive else nullcontext() as live:
        board = Board(run, live)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_statuses(run, board, every))
                if alive:
                    both.create_task(_services(run, board))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None


async def _statuses(run: Run, board: Board, every: timedelta) -> None:
    async with run.client.maintenance.watch_status(every, on_interruption=board.lost) as statuses:
        async for status in statuses:
            board.status(status)


async def _services(run: Run, board: Board) -> None:
    async with run.client.maintenance.watch() as services:
        async for service in services:
            board.service(service)
