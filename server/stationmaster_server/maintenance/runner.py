"""One background service on this server: when it runs, how long it may, and what becomes of failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.maintenance import store
from stationmaster_server.maintenance.base import BackgroundService
from stationmaster_server.maintenance.growth import Footprints, Growth
from stationmaster_server.maintenance.model import BY_DEFAULT, Policy, Scope, ServiceState, Settings
from stationmaster_server.maintenance.store import Claimed
from stationmaster_server.maintenance.thresholds import Alarm, Watchman
from stationmaster_server.maintenance.waking import RunFailed, RunsElsewhere, Waking, held

LEASE = timedelta(seconds=30)
_SHORTEST_LOOK, _LONGEST_LOOK = timedelta(seconds=5), timedelta(minutes=1)
"""Between two looks whether a service that is for all servers is due, and nobody runs it."""
_BEYOND_JITTER = 1.25
"""So much of a pause is over when the database says so as well, however it is spread."""
_FIRST_LOOK = timedelta(seconds=1)
"""From the start of a server: it does not begin with what can wait."""
_AWAY_PAUSE = timedelta(seconds=5)
"""Until the next attempt when the database was away."""
_NOBODYS_FAULT = (Reason.DATABASE_UNAVAILABLE, Reason.SERVER_OVERLOADED, Reason.SERVER_STOPPING)
"""Reasons that count for no failure; a provider that is away is one, or nobody would hear of it."""
_LONGEST_ERROR = 1000

_log = structlog.get_logger(__name__)


class Runner:
    """Runs a service until it is cancelled."""

    def __init__(
        self,
        service: BackgroundService[Any],
        database: Database,
        alarm: Alarm,
        footprints: Footprints,
        *,
        lease: timedelta = LEASE,
    ) -> None:
        self.service = service
        self.settings: Settings = BY_DEFAULT
        self._watchman = Watchman(service, alarm)
        self.figures = self._watchman.figures
        self.changed = True
        """Whether the figures changed since this was set to False."""
        self._database = database
        self._footprints = footprints
        self._growth = Growth()
        self._lease = lease
        self._waking = Waking()
        self._configured: Settings | None = None
        self._update: asyncio.Task[None] | None = None
        self._away = False

    @property
    def policy(self) -> Policy:
        """What holds now."""
        return self.service.policy.of(self.settings)

    def take(self, settings: Settings) -> None:
        """Go by these settings; a run that is under way ends if they hold the service."""
        if settings == self.settings:
            return
        self.settings = settings
        self._waking.wake()
        if self._update is not None and not settings.runs:
            self._update.cancel()

    def notify(self) -> None:
        """There is something to do: run at once, unless it is waiting after a failure."""
        self._waking.notify()

    async def run_now(self) -> None:
        """Run though it is not due, as in every round: by the stored settings, and under the lease.

        Raises FailedPrecondition(SERVICE_HELD), RunsElsewhere, Unavailable (what it needs is away, or this server
        stops) and RunFailed: the failure is the service's as any other, and it is tried again by its pauses.
        """
        await self._read_settings()
        if (refused := held(self.service.service_id, self.settings)) is not None:
            raise refused
        await self._waking.ask()

    async def prepare(self) -> None:
        """Have the service go by the stored settings, for an operation beside its runs. Raises Unavailable."""
        await self._read_settings()
        await self._configure()

    async def _read_settings(self) -> None:
        async with self._database.system(autocommit=True) as tx:
            stored = await store.all_settings(tx)
        self.take(stored.get(self.service.service_id, BY_DEFAULT))

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            if self.service.scope is Scope.ONE_SERVER:
                await self._waking.wait(_FIRST_LOOK)
            while True:
                self._waking.begin()
                pause = await self._try_round()
                await self._waking.wait(pause, keep=self._away or self.figures.failures_in_a_row > 0)
        finally:
            self._waking.end()
            await self._end()

    async def _try_round(self) -> timedelta | None:
        """A round; what goes wrong around a run ends neither this service nor its rounds to come."""
        try:
            if not self.settings.runs:
                self._waking.answer(held(self.service.service_id, self.settings))
                self.service.hold()
                return None
            return await self._round()
        except Exception as error:  # noqa: BLE001 - nobody awaits this: the service would be gone without a word
            _log.exception("a background service could not be looked after", service=self.service.service_id)
            self._waking.answer(RunFailed(_text_of(error)))
            return _AWAY_PAUSE

    async def _round(self) -> timedelta:
        """Run if it is due, or somebody asks for it; the pause until the next look."""
        if self.service.scope is Scope.EVERY_SERVER:
            failures, error = await self._once(self.figures.failures_in_a_row)
            self._waking.answer(self._answer(error))
            return self._pause(failures)
        look = min(max(self.policy.interval / 60, _SHORTEST_LOOK), self.policy.interval, _LONGEST_LOOK)
        claimed_at = asyncio.get_running_loop().time()
        try:
            async with self._database.system(autocommit=True) as tx:
                claimed = await store.claim(tx, self.service.service_id, self._lease, early=self._waking.asked)
        except Unavailable as away:
            self._waking.answer(away)
            return look
        if claimed is None:
            self._waking.answer(self._elsewhere())
            return look
        pause, error = await self._leased(claimed, claimed_at)
        self._waking.answer(self._answer(error))
        return min(look, _BEYOND_JITTER * pause)

    async def _leased(self, claimed: Claimed, claimed_at: float) -> tuple[timedelta, BaseException | None]:
        self._watchman.told = claimed.told
        async with self._renewing(claimed.token, claimed_at):
            failures, error = await self._once(claimed.failures_in_a_row)
        pause, told = self._pause(failures), self._watchman.told
        try:
            async with self._database.system(autocommit=True) as tx:
                await store.release(tx, self.service.service_id, claimed, pause, failures, told)
        except Unavailable:
            pass  # the lease expires
        return pause, error

    def _answer(self, error: BaseException | None) -> Exception | None:
        """What those are told who asked for a run that ended so."""
        if error is None:
            return None
        if isinstance(error, asyncio.CancelledError):
            return held(self.service.service_id, self.settings) or self._elsewhere()
        return error if self._away and isinstance(error, Unavailable) else RunFailed(_text_of(error))

    def _elsewhere(self) -> RunsElsewhere:
        return RunsElsewhere(f"another server runs {self.service.service_id}")

    def _pause(self, failures: int) -> timedelta:
        return min(self.policy.interval, _AWAY_PAUSE) if self._away else self.policy.pause_after(failures)

    @asynccontextmanager
    async def _renewing(self, token: UUID, claimed_at: float) -> AsyncIterator[None]:
        """Keep the lease; a run whose lease is lost, or may be, is cancelled."""

        async def renew() -> None:
            with suppress(TimeoutError):
                await self._renew(token, claimed_at)
            name = self.service.service_id
            _log.warning("a run has lost its lease and is ended; another server may take it over", service=name)
            if self._update is not None:
                self._update.cancel()

        renewing = asyncio.create_task(renew(), name=f"lease of {self.service.service_id}")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _renew(self, token: UUID, kept_at: float) -> None:
        """Until the lease is somebody else's; TimeoutError when it has run out, however long the database is silent.

        It is counted from before the database was asked, which counts it from a moment later.
        """
        lease, name = self._lease.total_seconds(), self.service.service_id
        while True:
            async with asyncio.timeout_at(kept_at + lease):
                renewed = None
                while renewed is None:
                    await asyncio.sleep(lease / 4)
                    asked_at = asyncio.get_running_loop().time()
                    try:
                        async with self._database.system(autocommit=True) as tx:
                            renewed = await store.renew(tx, name, token, self._lease)
                    except Unavailable:
                        continue
                    except Exception:  # noqa: BLE001 - the run would go on without a lease, beside another server's
                        _log.exception("a lease was not renewed; it is tried again", service=name)
            if not renewed:
                return
            kept_at = asked_at

    async def _once(self, failures: int) -> tuple[int, BaseException | None]:
        """One run; failures in a row after it, and how it failed."""
        footprint = await self._footprints.read()
        if not self.settings.runs:  # since this round began
            return failures, asyncio.CancelledError()
        figures = self.figures
        if failures:
            figures.retried += 1
        figures.last_run_at, began = datetime.now(UTC), time.perf_counter()
        self._become(ServiceState.RUNNING)
        self._update = asyncio.create_task(self._bounded(), name=self.service.service_id)
        try:
            await asyncio.wait([self._update])
            error = _error_of(self._update)
        except asyncio.CancelledError:
            self._update.cancel()
            await asyncio.gather(self._update, return_exceptions=True)
            raise
        finally:
            self._update = None
        figures.took(time.perf_counter() - began)
        self._growth.note(footprint, await self._footprints.read())
        figures.memory_growth_bytes, figures.handle_growth = self._growth.memory_bytes, self._growth.handles
        self._away = isinstance(error, Unavailable) and error.reason in _NOBODYS_FAULT
        if error is None:
            return await self._succeeded(failures), None
        return await self._failed(error, failures), error

    async def _bounded(self) -> None:
        await self._configure()
        limit = self.service.time_limit
        try:
            async with asyncio.timeout(limit.total_seconds()) as bound:
                await self.service.update()
        except TimeoutError:
            if bound.expired():
                raise TimeoutError(f"it took longer than {limit.total_seconds():g} s and was ended") from None
            raise

    async def _configure(self) -> None:
        settings = self.settings
        if self._configured is not settings:
            await self.service.configure(self.service.options.model_validate(dict(settings.own)))
            self._configured = settings

    async def _succeeded(self, failures: int) -> int:
        figures = self.figures
        figures.completed += 1
        figures.failures_in_a_row = 0
        figures.last_success_at = datetime.now(UTC)
        self._become(ServiceState.IDLE)
        some = self._watchman.errors or self._watchman.told  # which may have been on another server
        await self._watchman.look(self.policy, await self._errors() if some else 0)
        return 0

    async def _failed(self, error: BaseException, failures: int) -> int:
        """Count it; after too many, start the service anew. That the database is away is nobody's failure."""
        figures = self.figures
        if isinstance(error, asyncio.CancelledError):
            self._become(ServiceState.IDLE)  # paused, or its lease was lost
            return failures
        if self._away:
            name = self.service.service_id
            _log.warning("a background service could not run; it is tried again", service=name, error=str(error))
            self._become(ServiceState.IDLE)
            return failures
        failures += 1
        text = _text_of(error)
        figures.failed += 1
        figures.failures_in_a_row = failures
        figures.last_error, figures.last_error_at = text, datetime.now(UTC)
        name = self.service.service_id
        _log.error("a background service failed; it is tried again", service=name, in_a_row=failures, exc_info=error)
        too_many = failures > self.policy.max_failures
        self._become(ServiceState.UNHEALTHY if too_many else ServiceState.FAILING)
        await self._note(text)
        if too_many:
            figures.restarted += 1
            await self._end()
        return failures

    async def _note(self, text: str) -> None:
        """Keep the error, and raise the alarm once if it is one too many."""
        recent = self._watchman.errors
        try:
            async with self._database.system(autocommit=True) as tx:
                recent = await store.put_error(tx, self.service.service_id, text)
        except Unavailable:
            _log.warning("an error of a background service is in the log alone", service=self.service.service_id)
        await self._watchman.look(self.policy, recent)

    async def _errors(self) -> int:
        """Within the last hour, on all servers."""
        service_id = self.service.service_id
        try:
            async with self._database.system(autocommit=True) as tx:
                return (await store.errors_last_hour(tx, [service_id])).get(service_id, 0)
        except Unavailable:
            return self._watchman.errors

    async def _end(self) -> None:
        """Let the service let go of everything; it is configured again before its next run."""
        self._configured = None
        try:
            await self.service.cleanup()
        except Exception:  # noqa: BLE001 - it is to be started anew all the same
            _log.exception("a background service could not clean up", service=self.service.service_id)

    def _become(self, state: ServiceState) -> None:
        self.figures.state = state
        self.changed = True


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    try:
        return task.exception()
    except asyncio.CancelledError as error:
        return error


def _text_of(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:_LONGEST_ERROR]
