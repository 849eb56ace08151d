"""How far an execution is: one line that moves at a terminal, and the words for it everywhere."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stationmaster_client.cli.output import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import RenderableType

_WIDEST_BAR = 40
_BESIDE_THE_BAR = 36


class Gauge:
    """Drawn anew several times a second by rich's Live; what it shows is set from outside."""

    def __init__(self, width: int) -> None:
        from rich.spinner import Spinner

        self.label = "queued"
        self.fraction: float | None = None
        self.message = ""
        self.counters: Mapping[str, int] = {}
        self.since: datetime | None = None
        self._width = width
        self._spinner = Spinner("dots", style="cyan")

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 1))
        cells: list[RenderableType] = [self._spinner, Text(clean(self.label), no_wrap=True)]
        bar_width = min(_WIDEST_BAR, self._width - _BESIDE_THE_BAR)
        if bar_width > 0:
            known = self.fraction is not None
            cells.append(ProgressBar(1.0 if known else None, self.fraction or 0.0, width=bar_width, pulse=not known))
        cells.append(Text("" if self.fraction is None else f"{self.fraction:4.0%}", no_wrap=True))
        cells.append(Text(self._elapsed(), "dim", no_wrap=True))
        for _ in cells:
            line.add_column(no_wrap=True)
        line.add_row(*cells)
        doing = told(self.message, self.counters)
        return Group(line, Text(f"  {doing}", "dim", no_wrap=True, overflow="ellipsis")) if doing else line

    def _elapsed(self) -> str:
        return "" if self.since is None else took((datetime.now(UTC) - self.since).total_seconds())


def told(message: str, counters: Mapping[str, int]) -> str:
    """What it is doing and what it has counted, on one line."""
    counts = (f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(counters.items()))
    return clean(" · ".join(part for part in (message, *counts) if part)).replace("\n", " ")


def took(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3:05`, `2:00:07`."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def between(start: Timestamp, end: Timestamp) -> str:
    """How long it took, or has taken so far; empty when it has not begun."""
    if not start.ByteSize():
        return ""
    until = end.ToDatetime(UTC) if end.ByteSize() else datetime.now(UTC)
    return took((until - start.ToDatetime(UTC)).total_seconds())
