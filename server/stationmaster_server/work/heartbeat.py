"""The heartbeats of everything a worker holds, in one statement a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import timedelta

from pydantic_core import to_json

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import StationmasterError
from stationmaster_server.work import claim_store
from stationmaster_server.work.claim_store import Beat, Seen
from stationmaster_server.work.run import Run

logger = logging.getLogger(__name__)

_LONGEST_PERIOD = 1.0  # seconds: how late a request to cancel is heard at most
_RENEW_SHARE = 3  # a lease is renewed when a third of it has passed


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
            runs = [run for run in self._held if not run.completing]
            if not runs:
                continue
            try:
                await self._beat(runs)
            except StationmasterError as error:
                logger.warning("leases could not be renewed: %s", error)
            except Exception:
                logger.exception("leases could not be renewed")

    async def _beat(self, runs: list[Run]) -> None:
        now = asyncio.get_running_loop().time()
        due = now - self._lease.total_seconds() / _RENEW_SHARE
        beats = [self._take(run, run.renewed_at <= due) for run in runs]
        async with self._database.system(autocommit=True) as tx:
            answers = await claim_store.beat(tx, beats, self._lease)
        for run, beat, seen in zip(runs, beats, answers, strict=True):
            if beat.renew:
                run.renewed_at = now
            self._told(run, seen)

    def _take(self, run: Run, due: bool) -> Beat:
        """The beat of a run, with what its handler said since the last."""
        alive, run.alive = run.alive, False
        said, run.progress = run.progress, None
        progress = None if said is None else to_json(said).decode()
        item = run.item
        return Beat(item.organization_id, item.item_id, run.lease_token, due or alive, alive, progress)
