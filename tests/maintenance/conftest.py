"""Registries on the test's database, each as on a server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest_asyncio
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.maintenance.alarms import Alarms
from stationmaster_server.maintenance.base import BackgroundService
from stationmaster_server.maintenance.model import Fault, Figures
from stationmaster_server.maintenance.registry import Registry
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.telemetry.metrics import Metrics

LEASE = timedelta(seconds=1)


class NotedAlarms(Alarms):
    """Alarms that are noted as well."""

    def __init__(self) -> None:
        super().__init__(Outbound())
        self.told: list[tuple[str, str]] = []

    async def tell(self, service: BackgroundService[Any], figures: Figures, fault: Fault | None) -> None:
        """Note it."""
        self.told.append((service.service_id, fault.text if fault else ""))
        await super().tell(service, figures, fault)


@dataclass
class Host:
    """What a server has of background services."""

    registry: Registry
    alarms: NotedAlarms = field(default_factory=NotedAlarms)
    metrics: Metrics = field(default_factory=Metrics)


Start = Callable[..., Awaitable[Host]]


@pytest_asyncio.fixture
async def host(database: Database) -> AsyncIterator[Start]:
    """Starts hosts: `await host(service, ...)`; all are stopped in the end."""
    async with AsyncExitStack() as stack:

        async def start(*services: BackgroundService[Any]) -> Host:
            alarms, metrics, listener = NotedAlarms(), Metrics(), Listener(database)
            registry = Registry(database, listener, metrics, alarms, "1.0", lambda: {"threads": 1.0}, lease=LEASE)
            for service in services:
                registry.add(service)
            await listener.start()
            stack.push_async_callback(listener.stop)
            await stack.enter_async_context(registry)
            return Host(registry, alarms, metrics)

        yield start
