"""The chart of timings in letters of one width."""

from __future__ import annotations

from stationmaster_server.tasks.reports.bounds import line
from stationmaster_server.tasks.reports.chart import Chart, Lane, Tick

_LABEL, _COLUMNS = 22, 48
_WELL, _FAILED, _NOTHING = "█", "x", "·"


def to_text(chart: Chart) -> str:
    """The chart as lines: `█` where something took time, `x` where it failed."""
    lanes = [f"{line(lane.label, _LABEL):>{_LABEL}} {_drawn(lane)} {lane.figure}" for lane in chart.lanes]
    return "\n".join([f"{' ' * _LABEL} {_ruler(chart.ticks)}".rstrip(), *lanes])


def _drawn(lane: Lane) -> str:
    cells = [_NOTHING] * _COLUMNS
    for bar in sorted(lane.bars, key=lambda each: each.failed):
        first = min(_COLUMNS - 1, int(bar.start * _COLUMNS))
        for at in range(first, max(first + 1, round(bar.end * _COLUMNS))):
            cells[at] = _FAILED if bar.failed else _WELL
    return "".join(cells)


def _ruler(ticks: tuple[Tick, ...]) -> str:
    """The labels, each from where its mark is."""
    ruler = ""
    for tick in ticks:
        at = int(tick.at * _COLUMNS)
        if at >= len(ruler):
            ruler = f"{ruler:<{at}}{tick.label} "
    return ruler
