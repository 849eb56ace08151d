"""The chart of timings as shapes without a unit: HTML and PDF draw the same one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from stationmaster_server.tasks.reports.figures import span as in_words
from stationmaster_server.tasks.reports.model import Report, Span, SpanKind

_MOST_LANES = 14
_MOST_ROWS = 4
_TICKS = 6
# Lengths of time that people count in, in seconds.
_STEPS = tuple(
    factor * unit
    for unit, factors in (
        (0.001, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        (1, (1, 2, 5, 10, 15, 30)),
        (60, (1, 2, 5, 10, 15, 30)),
        (3600, (1, 2, 3, 6, 12)),
        (86400, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
    )
    for factor in factors
)
_LABELS = {SpanKind.QUEUED: "Queued", SpanKind.ATTEMPT: "Attempts", SpanKind.MODEL: "Model", SpanKind.TOOL: "Tool"}
_NAMES = {
    SpanKind.QUEUED: "waiting",
    SpanKind.ATTEMPT: "attempts",
    SpanKind.MODEL: "model calls",
    SpanKind.TOOL: "tool calls",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One span: where it begins and ends, as shares of the whole, and in which row of its lane."""

    start: float
    end: float
    row: int
    failed: bool
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """The spans of one name. `figure` is their number and how long they took together."""

    kind: SpanKind
    label: str
    figure: str
    rows: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the line of time."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lanes over one line of time."""

    length: str
    ticks: tuple[Tick, ...]
    lanes: tuple[Lane, ...]


def chart(report: Report) -> Chart | None:
    """The chart of a report; None when it has no timings."""
    if not report.spans:
        return None
    spans = [_ended(span, report) for span in report.spans]
    begin = min(start for start, _, _ in spans)
    whole = max((end for _, end, _ in spans), default=begin) - begin
    lanes = [_lane(kind, label, part, begin, whole) for (kind, label), part in _grouped(spans)]
    return Chart(in_words(whole), tuple(_ticks(whole)), tuple(lanes))


def legend(chart: Chart) -> list[tuple[str, str]]:
    """What the colours mean that are in the chart: the kind of a span, or `failed`, and its name."""
    kinds = {lane.kind for lane in chart.lanes for bar in lane.bars if not bar.failed}
    found = [(kind.value, _NAMES[kind]) for kind in SpanKind if kind in kinds]
    broken = any(bar.failed for lane in chart.lanes for bar in lane.bars)
    return [*found, ("failed", "failed")] if broken else found


_Placed = tuple[datetime, datetime, Span]


def _ended(span: Span, report: Report) -> _Placed:
    """The span with an end that is not before its start."""
    last = max((other.ended_at or other.started_at for other in report.spans), default=span.started_at)
    end = span.ended_at or report.finished_at or last
    return span.started_at, max(end, span.started_at), span


def _grouped(spans: Iterable[_Placed]) -> Iterable[tuple[tuple[SpanKind, str], list[_Placed]]]:
    """The spans by lane: in the order of kinds, then of their first start; the shortest tools share the last lane."""
    groups: dict[tuple[SpanKind, str], list[_Placed]] = {}
    for placed in sorted(spans, key=lambda each: each[0]):
        span = placed[2]
        name = span.name if span.kind in (SpanKind.MODEL, SpanKind.TOOL) else ""
        if span.kind is SpanKind.MODEL:
            name = name.partition(":")[2] or name  # `provider:name`: the name tells
        groups.setdefault((span.kind, name or _LABELS[span.kind]), []).append(placed)
    order = list(SpanKind)
    found = sorted(groups.items(), key=lambda group: order.index(group[0][0]))
    if len(found) <= _MOST_LANES:
        return found
    by_length = sorted(found, key=lambda group: sum((e - s for s, e, _ in group[1]), timedelta()), reverse=True)
    kept = [group for group in found if group in by_length[: _MOST_LANES - 1]]
    others = [placed for group in found if group not in kept for placed in group[1]]
    return [*kept, ((SpanKind.TOOL, "Others"), sorted(others, key=lambda each: each[0]))]


def _lane(kind: SpanKind, label: str, spans: list[_Placed], begin: datetime, whole: timedelta) -> Lane:
    ends: list[datetime] = []
    bars = []
    for start, end, span in spans:
        row = next((row for row, free in enumerate(ends) if free <= start), len(ends))
        if row == len(ends) and row < _MOST_ROWS:
            ends.append(end)
        row = min(row, _MOST_ROWS - 1)
        ends[row] = max(ends[row], end)
        title = f"{span.name or label}: {in_words(end - start)}, after {in_words(start - begin)}"
        bars.append(Bar(_share(start - begin, whole), _share(end - begin, whole), row, span.failed, title))
    length = in_words(sum((end - start for start, end, _ in spans), timedelta()))
    figure = length if len(spans) == 1 else f"{len(spans)} \N{MULTIPLICATION SIGN} · {length}"
    return Lane(kind, label, figure, len(ends), tuple(bars))


def _share(part: timedelta, whole: timedelta) -> float:
    return round(part / whole, 5) if whole else 0.0


def _ticks(whole: timedelta) -> Iterable[Tick]:
    seconds = whole.total_seconds()
    if seconds <= 0:
        return
    step = next((step for step in _STEPS if seconds / step <= _TICKS), _STEPS[-1])
    for number in range(min(_TICKS, int(seconds / step)) + 1):
        yield Tick(round(number * step / seconds, 5), "0" if number == 0 else _short(number * step))


def _short(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
