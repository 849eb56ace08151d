"""The worker of a server: claims what is due, runs it by its kind's handler, and writes how it ended."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Mapping, Set
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.errors import LeaseLost, StationmasterError, Unavailable
from stationmaster_server.resilience.pulse import Pulse
from stationmaster_server.resilience.whose import WHOSE
from stationmaster_server.work import claim_store
from stationmaster_server.work.claim_store import Seen, Settlement
from stationmaster_server.work.completer import Completer
from stationmaster_server.work.heartbeat import Heart
from stationmaster_server.work.model import Cancelled, Failed, Outcome, Released, State, WorkItem
from stationmaster_server.work.notifier import CHANNEL
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.reaper import Reaper
from stationmaster_server.work.retry import decide
from stationmaster_server.work.run import Handler, Run
from stationmaster_server.work.store import Lease

logger = logging.getLogger(__name__)

_CLAIM_LIMIT = 200
_END_LIMIT = 5.0  # seconds for a handler that was ended at the stop; past it the item is left to its lease
_WRITE_LIMIT = 1.0  # seconds for the ends at the stop, though the grace is over
_PROMISE = 1.0  # seconds that a slot is kept for a submission: one that was rolled back does not say so
_LOOK = 0.02  # seconds between two looks, at the stop, whether a promised slot was taken


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What an installation may change about its worker."""

    slots: int = 100  # handlers at once
    lease: timedelta = timedelta(seconds=15)
    poll: timedelta = timedelta(seconds=1)  # the safety net, and the grain of `run_at`
    reap: timedelta = timedelta(milliseconds=500)
    ageing: timedelta = timedelta(seconds=60)  # of waiting, for the first of a lane to go up one priority
    cancel_grace: timedelta = timedelta(seconds=10)  # from asking a handler to stop to ending it


class Worker:
    """Make it before the listener starts; `start` it with everything that handlers need, `stop` it first."""

    def __init__(
        self,
        database: Database,
        queue: WorkQueue,
        handlers: Mapping[str, Handler],
        settings: WorkerSettings | None = None,
        *,
        listener: Listener | None = None,
    ) -> None:
        self._database = database
        self._queue = queue
        self._handlers = handlers
        self._settings = settings or WorkerSettings()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._held: dict[UUID, Run] = {}  # by lease token: claimed, and not known to be settled
        self._active = 0  # handlers that run and take a slot
        self._waiting = 0  # handlers that have lent theirs
        self._promised: dict[UUID, float] = {}  # by lease token, until when: of submissions that may yet commit
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._over = False  # the grace of the stop: what is taken now is handed back
        self._claimer: asyncio.Task[None] | None = None
        self._completer = Completer(database, queue.wake, self._settings.lease * 4)
        self._heart = Heart(database, self._settings.lease, self._held.values(), self._told)
        self._reaper = Reaper(database, queue.wake, self._settings.reap, self._settings.lease)
        self.pulse = Pulse()
        """Of claiming."""
        queue.attach(self)
        if listener is not None:
            listener.add(CHANNEL, lambda _: self._wake.set())

    @property
    def pulses(self) -> dict[str, Pulse]:
        """Of claiming, of renewing leases, and of reaping."""
        return {"claiming": self.pulse, "leases": self._heart.pulse, "reaping": self._reaper.pulse}

    def start(self) -> None:
        """Begin to claim, to beat and to reap."""
        self._claimer = asyncio.create_task(self._claim_forever(), name="work claimer")
        self._heart.start()
        self._reaper.start()

    async def stop(self, grace: timedelta) -> None:
        """Claim no more; let handlers finish, or hand back, within `grace`; hand back the rest for them.

        What cannot be written, when the database is away, is left to its lease.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + grace.total_seconds()
        self._stopping.set()
        self._wake.set()
        await self._reaper.stop()
        if self._claimer is not None:
            await _end(self._claimer, max(until - loop.time(), _WRITE_LIMIT))
        await self._finished(until)
        self._over = True
        for task in self._running():
            task.cancel()
        await self._finished(loop.time() + _END_LIMIT)
        await self._completer.close(timedelta(seconds=max(until - loop.time(), _WRITE_LIMIT)))
        await self._heart.stop()

    def _running(self) -> list[asyncio.Task[None]]:
        return [run.task for run in self._held.values() if run.task is not None and not run.task.done()]

    async def _finished(self, until: float) -> None:
        """Wait until nothing runs, and no submission is about to commit what would run; no longer than `until`."""
        loop = asyncio.get_running_loop()
        while (tasks := self._running()) or self._count_promised():
            left = until - loop.time()
            if left <= 0:
                return
            await (asyncio.wait(tasks, timeout=left) if tasks else asyncio.sleep(min(left, _LOOK)))

    # What the queue asks of the worker of its server.

    def wake(self, kind: str | None) -> bool:
        """There is something to claim, maybe of a kind that is known; False when this worker cannot take it now."""
        if self._stopping.is_set() or self._free() <= 0 or (kind is not None and kind not in self._handlers):
            return False
        self._wake.set()
        return True

    def lease_for(self, kind: str) -> Lease | None:
        """A lease to take at once, when a slot is free for the kind."""
        if self._stopping.is_set() or self._claimer is None or kind not in self._handlers or self._free() <= 0:
            return None
        lease = Lease(uuid4(), self._name, self._settings.lease)
        self._promised[lease.token] = asyncio.get_running_loop().time() + _PROMISE
        return lease

    def take(self, item: WorkItem) -> None:
        """Run an item whose lease was taken with its submission."""
        if item.lease_token is not None:
            self._promised.pop(item.lease_token, None)
        self._run(item)

    def give_back(self, lease: Lease) -> None:
        """The lease was not taken after all."""
        if self._promised.pop(lease.token, None) is not None:
            self._wake.set()

    def cancel(self, item_id: UUID) -> None:
        """Tell the item's handler, if it runs here."""
        for run in self._held.values():
            if run.item.item_id == item_id:
                self._ask_to_cancel(run)

    # Claiming.

    def _free(self) -> int:
        slots = self._settings.slots
        # Ends that are still to be written hold no slot, unless they pile up.
        return min(slots - self._active, 2 * slots + self._waiting - len(self._held)) - self._count_promised()

    def _count_promised(self) -> int:
        now = asyncio.get_running_loop().time()
        while self._promised and self._promised[oldest := next(iter(self._promised))] < now:
            del self._promised[oldest]
        return len(self._promised)

    def _lend(self, lent: bool) -> None:
        change = 1 if lent else -1
        self._waiting += change
        self._active -= change
        if lent:
            self._wake.set()

    async def _claim_forever(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            wanted = min(self._free(), _CLAIM_LIMIT)
            claimed = await self._claim(wanted) if wanted > 0 else self._busy()
            # One claim may leave some where many owners queue; that it got many says that there may be more.
            if claimed == 0 or claimed * 4 < wanted:
                await self._nap()

    def _busy(self) -> int:
        """Nothing is claimed, for all slots are taken; that is a round as well."""
        self.pulse.beat(0.0)
        return 0

    async def _nap(self) -> None:
        try:
            async with asyncio.timeout(self._settings.poll.total_seconds()):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _claim(self, limit: int) -> int:
        settings = self._settings
        try:
            with self.pulse.round():
                async with self._database.system(autocommit=True) as tx:
                    items = await claim_store.claim(
                        tx, list(self._handlers), limit, settings.ageing, self._name, settings.lease
                    )
        except StationmasterError as error:
            logger.warning("work could not be claimed: %s", error)
            return 0
        except Exception:
            logger.exception("work could not be claimed")
            return 0
        limited = [item for item in items if item.rate_key is not None]
        for item in items:
            if item.rate_key is None:
                self._run(item)
        if limited:
            sent_back = await self._throttle(limited)
            for item in limited:
                if item.item_id not in sent_back:
                    self._run(item)
        return len(items)

    async def _throttle(self, limited: list[WorkItem]) -> Set[UUID]:
        """Those whose time has not come. What cannot be asked about is run: it is ours, and nobody else's to run."""
        try:
            async with self._database.system(autocommit=True) as tx:
                return await claim_store.throttle(tx, limited)
        except Exception as error:  # noqa: BLE001 - whatever it is, the leases are taken
            logger.warning("rates could not be looked at; %s items begin now: %s", len(limited), error)
            return frozenset()

    # Running.

    def _run(self, item: WorkItem) -> None:
        run = Run(item, self._stopping, asyncio.get_running_loop().time())
        run.lend = self._lend
        self._held[run.lease_token] = run
        self._active += 1
        run.task = asyncio.create_task(self._process(run))

    async def _process(self, run: Run) -> None:
        try:
            outcome = Released() if self._over else await self._outcome(run)
        finally:
            self._active -= 1
            self._wake.set()
        if outcome is None or run.settled or run.lost:
            self._forget(run)
            return
        item = run.item
        decision = decide(outcome, item.attempt, item.retry)
        run.completing = True
        # From here on the end is the completer's: nobody who cancels this task can prevent that it is written.
        settlement = Settlement(item.organization_id, item.item_id, run.lease_token, item.concurrency_key, decision)
        settled = self._completer.put(settlement, run.requeued)
        settled.add_done_callback(lambda _: self._settled(run, settled))

    def _settled(self, run: Run, settled: asyncio.Future[State | None]) -> None:
        self._forget(run)
        state = settled.result()
        if state is None:
            logger.warning("work item %s: the lease was lost before its end was written", run.item.item_id)
        elif state is State.QUEUED:
            self._queue.wake()
        if state is not None and run.then is not None:
            run.then()

    def _forget(self, run: Run) -> None:
        self._held.pop(run.lease_token, None)
        self._wake.set()

    async def _outcome(self, run: Run) -> Outcome | None:
        """Run the handler to an outcome; None when there is nothing to be written."""
        handler = self._handlers[run.item.kind]
        WHOSE.set(run.item.organization_id)  # of this task alone
        limit = run.item.attempt_timeout
        try:
            return await (handler(run) if limit is None else _within(limit, handler(run)))
        except asyncio.CancelledError:
            return self._ended(run)
        except LeaseLost:
            run.lost = True
            return None
        except Exception as error:
            logger.exception("work item %s of kind %s failed", run.item.item_id, run.item.kind)
            return _failed(error)

    def _ended(self, run: Run) -> Outcome | None:
        """Why the handler was ended: whoever cancels its task says so first."""
        if run.lost or run.settled:
            return None
        if run.cancelled.is_set():
            return Cancelled()
        if self._stopping.is_set():
            return Released()
        return Failed("the handler was cancelled, and not by its worker", reason="CANCELLED_ITSELF")

    def _told(self, run: Run, seen: Seen) -> None:
        """What a heartbeat brought back."""
        if not seen.held:
            # An end that is being written is no loss; if it was not the end, the next beat tells the same.
            first_told, run.missed = not run.missed, True
            if run.completing and first_told:
                return
            over = run.lost or run.settled or run.task is None or run.task.done()
            if run.task is not None and not over:
                logger.warning("work item %s: the lease was lost", run.item.item_id)
                run.lost = True
                run.task.cancel()
            return
        run.missed = False
        run.paused = seen.paused
        if seen.cancel_requested:
            self._ask_to_cancel(run)

    def _ask_to_cancel(self, run: Run) -> None:
        if run.cancelled.is_set() or run.task is None:
            return
        run.cancelled.set()
        grace = self._settings.cancel_grace.total_seconds()
        timer = asyncio.get_running_loop().call_later(grace, run.task.cancel)
        run.task.add_done_callback(lambda _: timer.cancel())


async def _end(task: asyncio.Task[None], limit: float) -> None:
    """Wait for a task, then cancel it."""
    await asyncio.wait([task], timeout=limit)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _within(limit: timedelta, outcome: Awaitable[Outcome]) -> Outcome:
    timeout = asyncio.timeout(limit.total_seconds())
    try:
        async with timeout:
            return await outcome
    except TimeoutError:
        if not timeout.expired():
            raise
        return Failed(f"the attempt took longer than {limit.total_seconds():g} s", reason="START_TO_CLOSE")


def _failed(error: Exception) -> Failed:
    reason = error.reason.value if isinstance(error, StationmasterError) else type(error).__name__
    wait = error.retry_after if isinstance(error, Unavailable) else None
    return Failed(f"{type(error).__name__}: {error}", reason=reason, retry_after=wait)
