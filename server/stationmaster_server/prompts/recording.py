"""What is noted about renders: counted here, and written by many at once, so that no render waits for the database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.prompts import figure_store
from stationmaster_server.prompts.figure_model import Exposure, FigureKey, Figures
from stationmaster_server.prompts.histogram import BUCKETS, bucket
from stationmaster_server.prompts.model import Selection
from stationmaster_server.resilience.loops import attempt

logger = logging.getLogger(__name__)

_Place = tuple[UUID, UUID, int, int, str]
"""What a FigureKey has, as it is hashed fastest: the hour as its number since 1970."""
EVERY = timedelta(seconds=1)
"""Between writes of figures; exposures are written as they come."""
_MOST_WAITING = 100_000
_MOST_KNOWN = 200_000
_MOST_FIGURES = 20_000
"""Versions and labels between two writes, and while the database is away."""


class Recorder:
    """One for each process; `start` and `close` it. A server that is killed loses its last second of figures."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._figures: dict[_Place, Figures] = {}
        self._exposures: list[Exposure] = []
        self._known: set[tuple[UUID, str]] = set()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._storing = asyncio.Lock()
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self.renders: Counter[str] = Counter()
        self.lost = 0
        """Exposures that were not written: the database was away too long, or cannot store them."""
        self.uncounted = 0
        """Renders and model calls that are in no figures, for the database was away too long."""

    def start(self) -> None:
        """Begin to write."""
        self._tasks = [
            asyncio.create_task(self._write_exposures(), name="write exposures"),
            asyncio.create_task(self._write_figures(), name="write figures of prompts"),
        ]

    async def close(self) -> None:
        """Write what waits, and stop."""
        self._closing = True
        self._wake.set()
        if self._tasks:
            self._tasks[1].cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await attempt("write figures of prompts", self.flush)

    def rendered(self, organization_id: UUID, selection: Selection, seconds: float, unit: str, *, failed: bool) -> None:
        """A render that ended, well or not."""
        self.renders["failed" if failed else "ok"] += 1
        figures = self._of(organization_id, selection)
        figures.renders += 1
        figures.errors += failed
        figures.latencies[bucket(seconds)] += 1
        if selection.experiment_id is not None and not failed:
            self._expose(Exposure(organization_id, selection.experiment_id, unit, selection.variant))

    def used(
        self,
        organization_id: UUID,
        selection: Selection,
        *,
        model_calls: int,
        input_tokens: int,
        output_tokens: int,
        cost_micros: int,
    ) -> None:
        """Model calls that were instructed by a version."""
        figures = self._of(organization_id, selection)
        figures.model_calls += model_calls
        figures.input_tokens += input_tokens
        figures.output_tokens += output_tokens
        figures.cost_micros += cost_micros

    async def flush(self) -> None:
        """Write what was counted so far."""
        async with self._writing:
            figures, self._figures = self._figures, {}
            if not figures:
                return
            try:
                async with self._database.system() as tx:
                    await figure_store.add_figures(tx, {_key(place): counted for place, counted in figures.items()})
            except BaseException:
                for place, counted in figures.items():
                    self._figures.setdefault(place, _nothing()).add(counted)
                raise

    async def flush_exposures(self) -> None:
        """Write the exposures so far."""
        async with self._storing:  # of two at once, each would take away what the other wrote
            while self._exposures:
                batch = self._exposures[: figure_store.BATCH]
                await self._store(list(dict.fromkeys(batch)))
                del self._exposures[: len(batch)]

    async def _store(self, exposures: Sequence[Exposure]) -> None:
        """Write all that the database can hold: one that it cannot must not hold the others up."""
        try:
            async with self._database.system(autocommit=True) as tx:
                await figure_store.add_exposures(tx, exposures)
        except InvalidArgument:  # the database's word for a text that it cannot hold
            half = len(exposures) // 2
            if half:
                await self._store(exposures[:half])
                await self._store(exposures[half:])
                return
            self.lost += 1
            logger.exception("an exposure of experiments/%s cannot be stored", exposures[0].experiment_id)

    def _of(self, organization_id: UUID, selection: Selection) -> Figures:
        hour = int(time.time()) // 3600
        place = (organization_id, selection.prompt_uid, hour, selection.version, selection.label)
        figures = self._figures.get(place)
        if figures is not None:
            return figures
        if len(self._figures) >= _MOST_FIGURES:
            self.uncounted += 1
            return _nothing()
        figures = self._figures[place] = _nothing()
        return figures

    def _expose(self, exposure: Exposure) -> None:
        known = (exposure.experiment_id, exposure.unit)
        if known in self._known:
            return
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        if len(self._exposures) >= _MOST_WAITING:
            self.lost += 1
            return
        self._known.add(known)
        self._exposures.append(exposure)
        self._wake.set()

    async def _write_exposures(self) -> None:
        while self._exposures or not self._closing:
            await self._wake.wait()
            self._wake.clear()
            await attempt("write exposures", self.flush_exposures)
            if self._exposures:
                if self._closing:
                    return
                await asyncio.sleep(EVERY.total_seconds())
                self._wake.set()

    async def _write_figures(self) -> None:
        while True:
            await asyncio.sleep(EVERY.total_seconds())
            await attempt("write figures of prompts", self.flush)


def _key(place: _Place) -> FigureKey:
    organization_id, prompt_uid, hour, version, label = place
    return FigureKey(organization_id, prompt_uid, datetime.fromtimestamp(hour * 3600, UTC), version, label)


def _nothing() -> Figures:
    return Figures(latencies=[0] * BUCKETS)
