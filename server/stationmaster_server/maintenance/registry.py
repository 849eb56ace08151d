"""Every background service of this server: started, told of new settings, and stopped, together."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listener import Listener
from stationmaster_server.errors import Unavailable
from stationmaster_server.maintenance import status_store, store
from stationmaster_server.maintenance.alarms import Alarms
from stationmaster_server.maintenance.base import BackgroundService
from stationmaster_server.maintenance.engines import Engine, EngineRunner
from stationmaster_server.maintenance.growth import Footprints
from stationmaster_server.maintenance.model import (
    BY_DEFAULT,
    FORGOTTEN_AFTER,
    NOTHING,
    SILENT_FOR,
    Figures,
    ServiceState,
)
from stationmaster_server.maintenance.runner import LEASE, Runner
from stationmaster_server.resilience.loops import attempt
from stationmaster_server.telemetry.metrics import Metrics

_TELL_EVERY = 2.0
"""Seconds between two times that this server tells what its services did."""

_UNHEALTHY = ServiceState.UNHEALTHY
_METRICS: tuple[tuple[str, str, Callable[[Figures], float]], ...] = (
    ("runs_completed", "Runs that ended well.", lambda figures: figures.completed),
    ("runs_failed", "Runs that failed.", lambda figures: figures.failed),
    ("runs_retried", "Runs that were tried again after a failure.", lambda figures: figures.retried),
    ("busy_seconds", "How long runs took, in all.", lambda figures: figures.busy_seconds),
)
_GAUGES: tuple[tuple[str, str, Callable[[Figures], float]], ...] = (
    ("healthy", "0: it keeps failing on this server.", lambda figures: float(figures.state is not _UNHEALTHY)),
    ("run_seconds", "How long a run took, on average of the last few.", lambda figures: figures.recent_seconds),
    ("memory_growth_bytes", "Left behind by its last runs, each of them.", lambda figures: figures.memory_growth_bytes),
    ("handle_growth", "Files left open by its last runs, each of them.", lambda figures: figures.handle_growth),
)

_log = structlog.get_logger(__name__)


class Registry:
    """`async with` it, once every service was added."""

    def __init__(
        self,
        database: Database,
        listener: Listener,
        metrics: Metrics,
        alarms: Alarms,
        version: str,
        resources: Callable[[], Mapping[str, float]],
        *,
        encoder: str = "",
        lease: timedelta = LEASE,
    ) -> None:
        """`resources`: what this process uses now. `encoder`: of its vectors. `lease`: of a run for all servers."""
        self.server_id = new_id()
        self.server_name = f"{socket.gethostname()}/{os.getpid()}"
        self._database = database
        self._listener = listener
        self._alarms = alarms
        self._version = version
        self._resources = resources
        self._encoder = encoder
        self.encryption_keys: Callable[[], Collection[str]] = tuple
        """Ids of those that this server has, which it tells the others."""
        self._lease = lease
        self._footprints = Footprints()
        self._runners: dict[str, Runner | EngineRunner] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._reload = asyncio.Event()
        self._counts_from: Mapping[str, Figures] = {}
        self._figures_told: Mapping[str, Figures] = {}
        listener.add(store.CHANNEL, self._told)
        for name, text, figure in _METRICS:
            metrics.read(f"background_service_{name}", text, self._read(figure), label="service", total=True)
        for name, text, figure in _GAUGES:
            metrics.read(f"background_service_{name}", text, self._read(figure), label="service")

    @property
    def services(self) -> dict[str, BackgroundService[Any]]:
        """All of them, by id."""
        return {service_id: runner.service for service_id, runner in sorted(self._runners.items())}

    def runner(self, service_id: str) -> Runner:
        """What runs a service here. Raises KeyError for one that is not here, or is an engine."""
        found = self._runners[service_id]
        if isinstance(found, EngineRunner):
            raise KeyError(service_id)
        return found

    async def lacking(self, key_id: str) -> list[str]:
        """The names of other living servers that have encryption keys, but said of this one that they have it not."""
        async with self._database.system(autocommit=True) as tx:
            return await status_store.lacking(tx, key_id, SILENT_FOR, self.server_id)

    def add(self, service: BackgroundService[Any]) -> None:
        """Add a service, before this is entered. Raises ValueError for an id that is taken."""
        if service.service_id in self._runners:
            raise ValueError(f"there are two background services {service.service_id!r}")
        if isinstance(service, Engine):
            self._runners[service.service_id] = EngineRunner(service, self._database, self._alarms.tell)
            return
        runner = Runner(service, self._database, self._alarms.tell, self._footprints, lease=self._lease)
        self._runners[service.service_id] = runner
        if service.channel is not None:
            self._listener.add(service.channel, lambda _: runner.notify())

    async def __aenter__(self) -> Registry:
        await self._load()
        await self._tell()
        self._tasks = [
            asyncio.create_task(runner.run(), name=f"background service {service_id}")
            for service_id, runner in self._runners.items()
        ]
        self._tasks.append(asyncio.create_task(self._keep_telling(), name="background figures"))
        self._tasks.append(asyncio.create_task(self._keep_loading(), name="background settings"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._footprints.close()
        try:
            async with asyncio.timeout(2):
                await self._tell(changed_only=False)
                async with self._database.system() as tx:
                    await store.drop_servers(tx, FORGOTTEN_AFTER, self.server_id)
        except (Unavailable, TimeoutError):
            _log.warning("the figures of background services since the last two seconds are lost")

    def _read(self, figure: Callable[[Figures], float]) -> Callable[[], dict[str, float]]:
        return lambda: {service_id: figure(runner.figures) for service_id, runner in self._runners.items()}

    def _told(self, service_id: str | None) -> None:
        """Settings changed (None: maybe those of several)."""
        self._reload.set()

    async def _keep_loading(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            await attempt("background settings", self._load_or_again)

    async def _load_or_again(self) -> None:
        try:
            await self._load()
        except BaseException:
            self._reload.set()
            await asyncio.sleep(1)
            raise

    async def _load(self) -> None:
        async with self._database.system(autocommit=True) as tx:
            found = await store.all_settings(tx)
        for service_id, runner in self._runners.items():
            if isinstance(runner, EngineRunner):
                continue
            runner.take(found.get(service_id, BY_DEFAULT))

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(_TELL_EVERY)
            await attempt("background figures", self._tell)  # what is told next time is told in full

    async def _tell(self, *, changed_only: bool = True) -> None:
        """Write what services did, and that this server is there; forget those that have long been gone."""
        figures = {name: replace(runner.figures) for name, runner in self._runners.items()}
        changed = {name: one for name, one in self._runners.items() if one.changed or not changed_only}
        for runner in changed.values():
            runner.changed = False
        about = (self.server_name, self._version, self._encoder)
        try:
            async with self._database.system() as tx:
                new = await status_store.seen(tx, self.server_id, *about, self._resources(), self.encryption_keys())
                # What was told before it was forgotten is part of the totals: from there it counts anew.
                before = dict(self._figures_told) if new else self._counts_from
                told = {name: one.since(before.get(name, NOTHING)) for name, one in figures.items()}
                await store.put_figures(tx, self.server_id, {name: told[name] for name in (told if new else changed)})
                await store.drop_servers(tx, FORGOTTEN_AFTER)
        except BaseException:
            for runner in changed.values():
                runner.changed = True
            raise
        self._counts_from, self._figures_told = before, figures
