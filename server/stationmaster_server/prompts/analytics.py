"""How prompts did over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.prompts import figure_store, store
from stationmaster_server.prompts.experiment_model import Metric
from stationmaster_server.prompts.figure_model import Figures, Point
from stationmaster_server.prompts.figure_store import Place
from stationmaster_server.prompts.recording import Recorder
from stationmaster_server.prompts.rules import found

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
_LONGEST = {HOUR: timedelta(days=31), DAY: timedelta(days=400)}
_DEFAULT_POINTS = 30
_MOST_POINTS = 20_000


@dataclass(slots=True)
class _Cell:
    """What belongs to one place of an analysis. Outcomes: how often, and their sum."""

    figures: Figures = field(default_factory=Figures)
    outcomes: dict[Metric, tuple[int, float]] = field(default_factory=dict)

    def add(self, other: _Cell) -> None:
        """Count another's with these."""
        self.figures.add(other.figures)
        for metric, (count, total) in other.outcomes.items():
            before = self.outcomes.get(metric, (0, 0.0))
            self.outcomes[metric] = (before[0] + count, before[1] + total)


class Analytics:
    """Reads what all servers counted."""

    def __init__(self, database: Database, recorder: Recorder) -> None:
        self._database = database
        self._recorder = recorder

    async def of(
        self, caller: Caller, prompt_id: str, start: datetime | None, end: datetime | None, interval: timedelta
    ) -> tuple[list[Point], list[Point]]:
        """Points by time, version and label, and totals by version and label. Raises NotFound, InvalidArgument."""
        first, last = _span(start, end, interval)
        organization_id = caller.tenant.organization_id
        await self._recorder.flush()  # what this server counted is in the answer
        async with self._database.tenant(caller.tenant, read=True) as tx:
            uid = found(await store.get(tx, organization_id, prompt_id), prompt_id).uid
            span = (organization_id, uid, first, last, "hour" if interval == HOUR else "day", _MOST_POINTS)
            figures = await figure_store.figures(tx, *span)
            outcomes = await figure_store.outcomes(tx, *span)
        if max(len(figures), len(outcomes)) >= _MOST_POINTS:
            raise InvalidArgument.field("start_time", "there are too many figures in this span: ask for a shorter one")
        points: dict[Place, _Cell] = defaultdict(_Cell)
        totals: dict[Place, _Cell] = defaultdict(_Cell)
        for place, counted in figures:
            points[place].figures = counted
        for place, metric, count, total in outcomes:
            points[place].outcomes[metric] = (count, total)
        for (_, version, label), cell in points.items():
            totals[first, version, label].add(cell)
        return _told(points), _told(totals)


def _told(cells: Mapping[Place, _Cell]) -> list[Point]:
    places = sorted(cells)
    return [Point(*place, cells[place].figures, _means(cells[place])) for place in places]


def _means(cell: _Cell) -> list[tuple[Metric, int, float]]:
    return [(metric, count, total / count) for metric, (count, total) in sorted(cell.outcomes.items())]


def _span(start: datetime | None, end: datetime | None, interval: timedelta) -> tuple[datetime, datetime]:
    last = end or datetime.now(UTC) + timedelta(seconds=1)
    try:
        first = _floor(start or last - interval * (_DEFAULT_POINTS - 1), interval)
    except OverflowError:
        raise InvalidArgument.field("end_time", "is too early") from None
    if first >= last:
        raise InvalidArgument.field("start_time", "must be before the end")
    if last - first > _LONGEST[interval] + interval:
        raise InvalidArgument.field("start_time", f"at most {_LONGEST[interval].days} days before the end")
    return first, last


def _floor(moment: datetime, interval: timedelta) -> datetime:
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour if interval == HOUR else hour.replace(hour=0)
