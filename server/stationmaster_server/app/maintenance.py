"""Background services, built: the registry that every room adds its own to, and MaintenanceService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.metadata import version

from stationmaster_server.app.engines import Engines
from stationmaster_server.app.ground import Ground
from stationmaster_server.app.transport import Gate
from stationmaster_server.app.watchdog import DATABASE
from stationmaster_server.config import Settings, SettingsError
from stationmaster_server.config.maintenance import MaintenanceSettings
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.partitions import ensure_every_partition
from stationmaster_server.db.requests import forget_old
from stationmaster_server.maintenance import alert_webhook, operation_store, store
from stationmaster_server.maintenance.alarms import Alarms
from stationmaster_server.maintenance.alert_webhook import AlertWebhook
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.engines import Engine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.maintenance.operations import Operations
from stationmaster_server.maintenance.registry import Registry
from stationmaster_server.maintenance.service import Maintenance
from stationmaster_server.maintenance.servicer import MaintenanceServicer
from stationmaster_server.maintenance.services.compaction import EventCompaction
from stationmaster_server.maintenance.services.indexes import IndexOptimization
from stationmaster_server.resilience.pulse import Pulse
from stationmaster_server.resilience.webhooks import read_secret
from stationmaster_server.rpc.server import RpcServer
from stationmaster_server.sessions.compaction import Compaction
from stationmaster_server.telemetry.metrics import Metrics
from stationmaster_server.telemetry.monitor import ResourceMonitor
from stationmaster_server.work.run import Handler
from stationmaster_server.work.worker import Worker

_MONTHS_AHEAD = 2


def build_registry(
    settings: Settings,
    database: Database,
    listener: Listener,
    gate: Gate,
    engines: Engines,
    metrics: Metrics,
    monitor: ResourceMonitor,
    looks: Pulse,
    encoder: str,
) -> Registry:
    """Make the registry, with the services that belong to no room.

    `looks`: the monitor's pulse. `encoder`: what makes this server's vectors.
    """
    alarms = Alarms(database, gate.audit, engines.queue, webhook=bool(settings.maintenance.alert_webhook))
    registry = Registry(
        database, listener, metrics, alarms, version("stationmaster"), lambda: monitor.figures, encoder=encoder
    )
    what = "Looks at what this process uses: CPU, memory, files, connections, threads."
    registry.add(Engine("resource-monitoring", what, looks, settings.telemetry.monitor_interval))
    what = "Makes the monthly partitions of the event log and the audit trail ahead of time."
    registry.add(
        Routine("partition-making", what, timedelta(hours=6), _making_partitions(database), scope=Scope.ONE_SERVER)
    )
    registry.add(IndexOptimization(database))
    registry.add(EventCompaction(Compaction(database, engines.log)))
    what = "Forgets request ids after 24 hours, and errors of background services after a day."
    registry.add(Routine("request-cleanup", what, timedelta(minutes=30), _forgetting(database), scope=Scope.ONE_SERVER))
    return registry


def add_engines(registry: Registry, on: Ground, worker: Worker) -> None:
    """Have the engines of this server seen."""
    second, lease = timedelta(seconds=1), on.settings.work.lease
    pulses = worker.pulses
    what = "Claims items of work that are due: turns, executions of tasks, operations."
    registry.add(Engine("work-claiming", what, pulses["claiming"], second))
    what = "Renews the leases of the work that runs here."
    registry.add(Engine("work-leases", what, pulses["leases"]))
    what = f"Takes work back whose server fell silent for {lease.total_seconds():g} s, or whose time is up."
    registry.add(Engine("work-reaping", what, pulses["reaping"], second))
    what = "Writes the events of streams, all that wait in one flush."
    registry.add(Engine("event-writing", what, on.engines.log.pulse))
    if (sequencing := on.gate.audit.pulse) is not None:
        what = "Gives audit events their places in the trees of their organizations."
        registry.add(Engine("audit-sequencing", what, sequencing, second))


def build_maintenance(stack: AsyncExitStack, server: RpcServer, on: Ground) -> dict[str, Handler]:
    """Put MaintenanceService on the server; return the handlers of operations and of alerts."""
    maintenance = Maintenance(
        on.database,
        on.gate.audit,
        lambda: on.background.services,
        on.settings.events.keepalive,
        lambda: on.board.missing,
    )
    operations = Operations(on.database, on.gate.audit, on.engines.queue, maintenance, on.background)
    server.add(MaintenanceServicer(maintenance, operations, on.tokens), needs=(DATABASE,))
    of_services = {operation_store.kind_of(service_id): operations for service_id in on.background.services}
    return {**of_services, alert_webhook.KIND: alerts_of(on.settings.maintenance)}


def alerts_of(settings: MaintenanceSettings) -> AlertWebhook:
    """Where alerts go, and what they are signed with. Raises SettingsError."""
    secret = settings.alert_secret
    try:
        return AlertWebhook(settings.alert_webhook, read_secret(secret.get_secret_value()) if secret else None)
    except ValueError as error:
        raise SettingsError(f"setting maintenance.alert_secret: it {error}") from None


def _making_partitions(database: Database) -> Callable[[], Awaitable[None]]:
    async def make() -> None:
        await ensure_every_partition(database, _MONTHS_AHEAD)

    return make


def _forgetting(database: Database) -> Callable[[], Awaitable[None]]:
    async def forget() -> None:
        async with database.system() as tx:
            await forget_old(tx)
            await store.forget_errors(tx)

    return forget
