"""The chart of timings as SVG in a page of HTML, which sets its colours by classes."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from stationmaster_server.tasks.reports.bounds import line
from stationmaster_server.tasks.reports.chart import Chart, Lane

_WIDTH, _LEFT, _RIGHT, _TOP = 816, 150, 118, 22
_BAR, _GAP = 13, 9
_PLOT = _WIDTH - _LEFT - _RIGHT


def to_svg(chart: Chart) -> Markup:
    """The chart as one element."""
    height = _TOP + sum(_height(lane) for lane in chart.lanes) + 4
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="Timings over {}">')
    parts = [head.format(_WIDTH, height, chart.length), *_ticks(chart, height)]
    top = _TOP
    for lane in chart.lanes:
        parts.extend(_lane(lane, top))
        top += _height(lane)
    return Markup("\n").join([*parts, Markup("</svg>")])


def _height(lane: Lane) -> int:
    return lane.rows * (_BAR + 2) - 2 + _GAP


def _ticks(chart: Chart, height: int) -> Iterator[Markup]:
    mark = Markup(
        '<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>'
        '<text class="soft" x="{0}" y="12" text-anchor="middle">{3}</text>'
    )
    for tick in chart.ticks:
        yield mark.format(round(_LEFT + tick.at * _PLOT, 1), _TOP - 4, height, tick.label)


def _lane(lane: Lane, top: int) -> Iterator[Markup]:
    middle = top + (lane.rows * (_BAR + 2) - 2) / 2 + 4
    yield Markup('<text x="{}" y="{}" text-anchor="end"><title>{}</title>{}</text>').format(
        _LEFT - 12, middle, lane.label, line(lane.label, 21)
    )
    bar = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="2"><title>{}</title></rect>')
    for each in lane.bars:
        kind = "failed" if each.failed else lane.kind.value
        width = max(2.0, (each.end - each.start) * _PLOT)
        left = min(_LEFT + each.start * _PLOT, _LEFT + _PLOT - width)
        yield bar.format(kind, round(left, 1), top + each.row * (_BAR + 2), round(width, 1), _BAR, each.title)
    yield Markup('<text class="soft" x="{}" y="{}">{}</text>').format(_LEFT + _PLOT + 12, middle, lane.figure)
