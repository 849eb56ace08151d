"""The heartbeats of everything a worker holds, in one statement a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_core import to_json

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import StationmasterError
from stationmaster_server.resilience.pulse import Pulse
from stationmaster_server.work import claim_store
from stationmaster_server.work.claim_store import Beat, Seen
from stationmaster_server.work.run import Run

logger = logging.getLogger(__name__)

_LONGEST_PERIOD = 1.0  # seconds: how late a request to cancel is heard at most
_RENEW_SHARE = 3  # a lease is renewed when a third of it has passed


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a run's handler said since the last beat, and the beat that carries it."""

    run: Run
    beat: Beat
    said: Mapping[str, Any] | None

    def put_back(self) -> None:
        """For the next beat; what was said meanwhile is newer."""
        self.run.alive = self.run.alive or self.beat.alive
        if self.run.progress is None:
            self.run.progress = self.said


class Heart:
    """Renews leases, carries progress out and requests in."""

    def __init__(
        self,
        database: Database,
        lease: timedelta,
        held: Collection[Run],
        told: Callable[[Run, Seen], None],
    ) -> None:
        self._database = database
        self._lease = lease
        self._held = held
        self._told = told
        self._task: asyncio.Task[None] | None = None
        self.pulse = Pulse()

    def start(self) -> None:
        """Begin to beat."""
        self._task = asyncio.create_task(self._run(), name="work heart")

    async def stop(self) -> None:
        """Stop beating."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        period = min(_LONGEST_PERIOD, self._lease.total_seconds() / _RENEW_SHARE)
        while True:
            await asyncio.sleep(period)
            # Also of what has ended: until the end is written, nobody else shall run it again.
            if not self._held:
                continue
            try:
                with self.pulse.round():
                    await self._beat(list(self._held))
            except StationmasterError as error:
                logger.warning("leases could not be renewed: %s", error)
            except Exception:
                logger.exception("leases could not be renewed")

    async def _beat(self, runs: list[Run]) -> None:
        now = asyncio.get_running_loop().time()
        due = now - self._lease.total_seconds() / _RENEW_SHARE
        taken = [_take(run, run.renewed_at <= due) for run in runs]
        unsaid = taken
        try:
            async with self._database.system(autocommit=True) as tx:
                answers = await claim_store.beat(tx, [each.beat for each in taken], self._lease)
            unsaid = [each for each, seen in zip(taken, answers, strict=True) if not seen.renewed]
        finally:
            for each in unsaid:
                each.put_back()
        for run, seen in zip(runs, answers, strict=True):
            if seen.renewed:
                run.renewed_at = now
            self._told(run, seen)


def _take(run: Run, due: bool) -> _Taken:
    """The beat of a run, with what its handler said since the last."""
    alive, run.alive = run.alive, False
    said, run.progress = run.progress, None
    item = run.item
    progress = None
    if said is not None:
        try:
            progress = to_json(said).decode()
        except Exception:
            logger.exception("work item %s: its progress is no JSON and is left out", item.item_id)
            said = None
    return _Taken(run, Beat(item.organization_id, item.item_id, run.lease_token, due or alive, alive, progress), said)
