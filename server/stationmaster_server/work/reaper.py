"""Takes back what died: expired leases, attempts and items whose time is up. Every server runs one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import StationmasterError
from stationmaster_server.resilience.pulse import Pulse
from stationmaster_server.work import claim_store, key_store
from stationmaster_server.work.claim_store import Settlement
from stationmaster_server.work.key_store import Key
from stationmaster_server.work.model import Failed, State, WorkItem
from stationmaster_server.work.queue import Settled, settle_all
from stationmaster_server.work.retry import Decision, decide
from stationmaster_server.work.submission import let_in_due

logger = logging.getLogger(__name__)

_BATCH = 200
_HOUSEKEEPING_EVERY = 120  # rounds

_ERRORS = {
    "LEASE_EXPIRED": "the worker was gone: its lease expired",
    "START_TO_CLOSE": "the attempt took longer than it may",
    "HEARTBEAT": "the handler gave no sign of life for longer than it may",
}


class Reaper:
    """Looks every `interval` for what nobody will end; the database's clock decides.

    While the database is away nobody can renew a lease. So after a round that failed, or that took as long as a lease,
    leases are good for another one: whoever is alive renews it meanwhile.
    """

    def __init__(self, database: Database, wake: Callable[[], None], interval: timedelta, lease: timedelta) -> None:
        self._database = database
        self._wake = wake
        self._interval = interval.total_seconds()
        self._lease = lease.total_seconds()
        self._looked_at = time.monotonic()
        self._failed = False
        self._leases_good_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self.pulse = Pulse()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="work reaper")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        rounds = 0
        while True:
            try:
                with self.pulse.round():
                    await self.reap()
                    await self.let_in()
                    if rounds % _HOUSEKEEPING_EVERY == 0:
                        await self.keep_house()
                rounds += 1
            except StationmasterError as error:
                self._failed = True
                logger.warning("expired work could not be taken back: %s", error)
            except Exception:
                self._failed = True
                logger.exception("the reaper failed; it goes on with the next round")
            await asyncio.sleep(self._interval)

    async def reap(self) -> int:
        """One round; returns how many items were taken back or ended. Keys that somebody else holds are left out."""
        taken_back, busy = 0, set[Key]()
        while True:
            async with self._database.system(autocommit=True) as tx:
                spare = self._failed or time.monotonic() < self._leases_good_until
                expired = await claim_store.find_expired(tx, _BATCH, spare_leases=spare, without=busy)
            if (self._was_away() and not spare) or not expired:
                return taken_back
            settled = await self._take_back(expired)
            taken_back += len(settled.states)
            if len(expired) < _BATCH or not (settled.states or settled.busy - busy):
                return taken_back
            busy |= settled.busy

    async def _take_back(self, expired: list[tuple[WorkItem, str]]) -> Settled:
        settlements = [_settlement(item, cause) for item, cause in expired]
        async with self._database.system() as tx:
            settled = await settle_all(tx, settlements, expired=True, wait=False)
        if settled.states:
            self._wake()
        for item, cause in expired:
            if item.item_id in settled.states:
                logger.info("work item %s: %s, now %s", item.item_id, cause, settled.states[item.item_id])
        return settled

    async def let_in(self) -> None:
        """Let in, or turn away, items of concurrency keys that were to run later and whose time has come.

        Keys that somebody else holds are left out.
        """
        seen = set[Key]()
        while True:
            async with self._database.system() as tx:
                due = await key_store.with_due_items(tx, _BATCH, without=seen)
                for key in sorted(await key_store.lock_free(tx, due)) if due else ():
                    await let_in_due(tx, key, _BATCH)
            if not due:
                return
            seen |= set(due)
            self._wake()

    def _was_away(self) -> bool:
        """Whether this is the first look after an outage; from it on, leases are good for as long as a new one."""
        now = time.monotonic()
        away = self._failed or now - self._looked_at > self._interval + self._lease
        if away:
            self._leases_good_until = now + self._lease
        self._failed, self._looked_at = False, now
        return away

    async def keep_house(self) -> None:
        """Give slots that were left unused to who waits, and forget lanes, keys and rates that are no longer used."""
        async with self._database.system() as tx:
            stalled = await key_store.with_unused_slots(tx)
            if stalled:
                await key_store.admit(tx, await key_store.lock_free(tx, stalled))
        async with self._database.system(autocommit=True) as tx:
            await claim_store.forget_unused(tx)


def _settlement(item: WorkItem, cause: str) -> Settlement:
    error = _ERRORS.get(cause)
    if error is None:
        decision = Decision(State.DEAD, reason=cause)
    else:
        # Somebody who is alive may have it at once; what was too slow waits like after any other failure.
        at_once = timedelta(0) if cause == "LEASE_EXPIRED" else None
        decision = decide(Failed(error, reason=cause, retry_after=at_once), item.attempt, item.retry)
    token = item.lease_token if item.state is State.RUNNING else None
    return Settlement(item.organization_id, item.item_id, token, item.concurrency_key, decision)
