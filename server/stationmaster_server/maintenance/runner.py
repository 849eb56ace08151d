"""One background service on this server: when it runs, how long it may, and what becomes of failures."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.maintenance import store
from stationmaster_server.maintenance.base import BackgroundService
from stationmaster_server.maintenance.growth import Growth
from stationmaster_server.maintenance.model import BY_DEFAULT, Policy, Scope, ServiceState, Settings
from stationmaster_server.maintenance.store import Claimed
from stationmaster_server.maintenance.thresholds import Alarm, Watchman

LEASE = timedelta(seconds=30)
_SHORTEST_LOOK, _LONGEST_LOOK = timedelta(seconds=5), timedelta(minutes=1)
"""Between two looks whether a service that is for all servers is due, and nobody runs it."""
_FIRST_LOOK = timedelta(seconds=1)
"""From the start of a server: it does not begin with what can wait."""
_AWAY_PAUSE = timedelta(seconds=5)
"""Until the next attempt when the database was away."""
_NOBODYS_FAULT = (Reason.DATABASE_UNAVAILABLE, Reason.SERVER_OVERLOADED, Reason.SERVER_STOPPING)
"""Reasons that count for no failure; a provider that is away is one, or nobody would hear of it."""
_JITTER = 0.1
_LONGEST_ERROR = 1000

_log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """Another server took the run over: this one was too slow to renew its lease."""


class Runner:
    """Runs a service until it is cancelled. `settings` may be changed meanwhile: call `look` then."""

    def __init__(
        self, service: BackgroundService[Any], database: Database, alarm: Alarm, *, lease: timedelta = LEASE
    ) -> None:
        self.service = service
        self.settings: Settings = BY_DEFAULT
        self._watchman = Watchman(service, alarm)
        self.figures = self._watchman.figures
        self.changed = True
        """Whether the figures changed since this was set to False."""
        self._database = database
        self._growth = Growth()
        self._lease = lease
        self._wake = asyncio.Event()
        self._configured: Settings | None = None
        self._update: asyncio.Task[None] | None = None
        self._away = False

    @property
    def policy(self) -> Policy:
        """What holds now."""
        return self.service.policy.of(self.settings)

    def look(self) -> None:
        """Something changed: settings, or there is a reason to run at once."""
        self._wake.set()
        if self._update is not None and not self.settings.runs:
            self._update.cancel()

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            if self.service.scope is Scope.ONE_SERVER:
                await self._wait(_FIRST_LOOK)
            while True:
                self._wake.clear()
                pause = await self._try_round() if self.settings.runs else None
                await self._wait(pause)
        finally:
            await self._end()

    async def _wait(self, pause: timedelta | None) -> None:
        """Until the pause is over, give or take a tenth, or there is something to look at; None: only the latter."""
        seconds = None if pause is None else pause.total_seconds() * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _try_round(self) -> timedelta:
        """A round; what goes wrong around a run ends neither this service nor its rounds to come."""
        try:
            return await self._round()
        except Exception:  # noqa: BLE001 - nobody awaits this: the service would be gone without a word
            _log.exception("a background service could not be looked after", service=self.service.service_id)
            return _AWAY_PAUSE

    async def _round(self) -> timedelta:
        """Run if it is due; the pause until the next look."""
        if self.service.scope is Scope.EVERY_SERVER:
            return self._pause(await self._once(self.figures.failures_in_a_row))
        look = min(max(self.policy.interval / 60, _SHORTEST_LOOK), self.policy.interval, _LONGEST_LOOK)
        try:
            async with self._database.system(autocommit=True) as tx:
                claimed = await store.claim(tx, self.service.service_id, self._lease)
        except Unavailable:
            return look
        if claimed is not None:
            await self._leased(claimed)
        return look

    async def _leased(self, claimed: Claimed) -> None:
        token = claimed.token
        self._watchman.told = claimed.told
        async with self._renewing(token):
            failures = await self._once(claimed.failures_in_a_row)
        pause, told = self._pause(failures), self._watchman.told
        try:
            async with self._database.system(autocommit=True) as tx:
                await store.release(tx, self.service.service_id, token, pause, failures, told)
        except Unavailable:
            return  # the lease expires

    def _pause(self, failures: int) -> timedelta:
        return min(self.policy.interval, _AWAY_PAUSE) if self._away else self.policy.pause_after(failures)

    @asynccontextmanager
    async def _renewing(self, token: UUID) -> AsyncIterator[None]:
        """Keep the lease; a run whose lease is lost is cancelled."""

        async def renew() -> None:
            kept_at = time.monotonic()
            while time.monotonic() < kept_at + self._lease.total_seconds():
                await asyncio.sleep(self._lease.total_seconds() / 4)
                try:
                    async with self._database.system(autocommit=True) as tx:
                        if not await store.renew(tx, self.service.service_id, token, self._lease):
                            break
                except Unavailable:
                    continue
                except Exception:  # noqa: BLE001 - the run would go on without a lease, beside another server's
                    _log.exception("a lease was not renewed; it is tried again", service=self.service.service_id)
                    continue
                kept_at = time.monotonic()
            if self._update is not None:
                self._update.cancel(msg=LeaseLost.__name__)

        renewing = asyncio.create_task(renew(), name=f"lease of {self.service.service_id}")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _once(self, failures: int) -> int:
        """One run; failures in a row after it."""
        figures = self.figures
        if failures:
            figures.retried += 1
        figures.last_run_at, began = datetime.now(UTC), time.perf_counter()
        self._become(ServiceState.RUNNING)
        self._update = asyncio.create_task(self._bounded(), name=self.service.service_id)
        try:
            with self._growth.watched():
                await asyncio.wait([self._update])
            figures.memory_growth_bytes, figures.handle_growth = self._growth.memory_bytes, self._growth.handles
            error = _error_of(self._update)
        except asyncio.CancelledError:
            self._update.cancel()
            await asyncio.gather(self._update, return_exceptions=True)
            raise
        finally:
            self._update = None
        figures.took(time.perf_counter() - began)
        self._away = isinstance(error, Unavailable) and error.reason in _NOBODYS_FAULT
        if error is None:
            return await self._succeeded(failures)
        return await self._failed(error, failures)

    async def _bounded(self) -> None:
        if self._configured is not self.settings:
            await self.service.configure(self.service.options.model_validate(dict(self.settings.own)))
            self._configured = self.settings
        limit = self.service.time_limit
        try:
            async with asyncio.timeout(limit.total_seconds()) as bound:
                await self.service.update()
        except TimeoutError:
            if bound.expired():
                raise TimeoutError(f"it took longer than {limit.total_seconds():g} s and was ended") from None
            raise

    async def _succeeded(self, failures: int) -> int:
        figures = self.figures
        figures.completed += 1
        figures.failures_in_a_row = 0
        figures.last_success_at = datetime.now(UTC)
        self._become(ServiceState.IDLE)
        await self._watchman.look(self.policy, await self._errors() if self._watchman.errors else 0)
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
            return 0
        failures += 1
        text = (str(error) or type(error).__name__)[:_LONGEST_ERROR]
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
