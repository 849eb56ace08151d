"""Registries on the test's database, each as on a server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest_asyncio
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.maintenance.alarms import Alarms
from stationmaster_server.maintenance.base import BackgroundService
from stationmaster_server.maintenance.model import Fault, Figures
from stationmaster_server.maintenance.registry import Registry
from stationmaster_server.telemetry.metrics import Metrics
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue

LEASE = timedelta(seconds=1)


class NotedAlarms(Alarms):
    """Alarms that are noted as well."""

    def __init__(self, database: Database) -> None:
        queue = WorkQueue(Notifier(database))
        super().__init__(database, AuditLog(database), queue)
        self.told: list[tuple[str, str]] = []

    async def tell(self, service: BackgroundService[Any], figures: Figures, fault: Fault | None) -> None:
        """Note it."""
        self.told.append((service.service_id, fault.text if fault else ""))
        await super().tell(service, figures, fault)


@dataclass
class Host:
    """What a server has of background services."""

    registry: Registry
    alarms: NotedAlarms
    metrics: Metrics = field(default_factory=Metrics)


Start = Callable[..., Awaitable[Host]]


@pytest_asyncio.fixture
async def host(database: Database) -> AsyncIterator[Start]:
    """Starts hosts: `await host(service, ...)`; all are stopped in the end."""
    async with AsyncExitStack() as stack:

        async def start(*services: BackgroundService[Any]) -> Host:
            alarms, metrics, listener = NotedAlarms(database), Metrics(), Listener(database)
            registry = Registry(database, listener, metrics, alarms, "1.0", lambda: {"threads": 1.0}, lease=LEASE)
            for service in services:
                registry.add(service)
            await listener.start()
            stack.push_async_callback(listener.stop)
            await stack.enter_async_context(registry)
            return Host(registry, alarms, metrics)

        yield start
