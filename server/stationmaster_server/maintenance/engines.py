"""Engines, which go on by themselves on every server: seen like other services, and neither held nor set."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Unavailable
from stationmaster_server.maintenance import store
from stationmaster_server.maintenance.base import BackgroundService, Options
from stationmaster_server.maintenance.model import BY_DEFAULT, Fault, Policy, Scope, ServiceState
from stationmaster_server.maintenance.thresholds import Alarm, Watchman
from stationmaster_server.resilience.loops import attempt
from stationmaster_server.resilience.pulse import Pulse

_LOOK = 1.0
_PATIENCE = timedelta(seconds=30)
"""An engine that went round no more for so long, and for five of its periods, hangs."""

_log = structlog.get_logger(__name__)


class Engine(BackgroundService[Options]):
    """An engine by its pulse. `every`: how often it goes round; None: when there is something to do."""

    options = Options
    scope = Scope.ENGINE

    def __init__(self, service_id: str, description: str, pulse: Pulse, every: timedelta | None = None) -> None:
        self.service_id = service_id
        self.description = description
        self.pulse = pulse
        self.every = every
        self.policy = Policy(every or timedelta())

    async def update(self) -> None:
        """Nobody has it run."""
        raise RuntimeError(f"{self.service_id} goes on by itself")


class EngineRunner:
    """Takes an engine's pulse, in the place of a `Runner`."""

    def __init__(self, engine: Engine, database: Database, alarm: Alarm) -> None:
        self.service: BackgroundService[Any] = engine
        self.settings = BY_DEFAULT
        self._watchman = Watchman(engine, alarm)
        self.figures = self._watchman.figures
        self.changed = True
        self._engine = engine
        self._database = database
        self._began = time.time()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await attempt(f"figures of {self._engine.service_id}", self.take)
            await asyncio.sleep(_LOOK)

    async def take(self) -> None:
        """What the engine did since the last look."""
        pulse, figures = self._engine.pulse, self.figures
        before = (figures.completed, figures.failed, figures.state)
        if pulse.completed > figures.completed:
            figures.took((pulse.busy_seconds - figures.busy_seconds) / (pulse.completed - figures.completed))
        figures.completed, figures.failed = pulse.completed, pulse.failed
        figures.busy_seconds = pulse.busy_seconds
        figures.last_run_at, figures.last_success_at = _moment(pulse.last_round), _moment(pulse.last_success)
        figures.failures_in_a_row = pulse.failures_in_a_row
        errors = pulse.take_errors()
        if errors:
            figures.last_error, figures.last_error_at = errors[-1], datetime.now(UTC)
        silent = self._silence()
        figures.state = _state(pulse, self._engine.policy, bool(silent))
        self.changed = self.changed or before != (figures.completed, figures.failed, figures.state)
        await self._watchman.look(self._engine.policy, await self._keep(errors), *silent)

    async def _keep(self, errors: list[str]) -> int:
        """Keep errors for a day; how many there were within the hour, if this server had any."""
        if not errors and not self._watchman.errors:
            return 0
        try:
            async with self._database.system(autocommit=True) as tx:
                for error in errors:
                    await store.put_error(tx, self._engine.service_id, error)
                return (await store.errors_last_hour(tx, [self._engine.service_id])).get(self._engine.service_id, 0)
        except Unavailable:
            _log.warning("errors of an engine are in the log alone", service=self._engine.service_id)
            return self._watchman.errors

    def _silence(self) -> list[Fault]:
        every = self._engine.every
        if every is None:
            return []
        silent_for = time.time() - max(self._engine.pulse.last_round, self._began)
        if silent_for < max(_PATIENCE, 5 * every).total_seconds():
            return []
        return [Fault("silent", f"it has not gone round for {silent_for:.0f} s: restart this server")]


def _state(pulse: Pulse, policy: Policy, silent: bool) -> ServiceState:
    if silent or pulse.failures_in_a_row > policy.max_failures:
        return ServiceState.UNHEALTHY
    return ServiceState.FAILING if pulse.failures_in_a_row else ServiceState.IDLE


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
