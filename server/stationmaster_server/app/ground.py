"""What every room stands on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from stationmaster_server.app.engines import Engines
from stationmaster_server.app.transport import Gate
from stationmaster_server.config import Settings
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.embedding.embedder import Embedder
from stationmaster_server.maintenance.registry import Registry
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.rpc.health import HealthBoard
from stationmaster_server.telemetry.metrics import Metrics
from stationmaster_server.wire.paging import PageTokens


@dataclass(frozen=True, slots=True)
class Ground:
    """What every room stands on."""

    settings: Settings
    database: Database
    listener: Listener
    gate: Gate
    engines: Engines
    pools: Pools
    tokens: PageTokens
    background: Registry
    outbound: Outbound
    embedder: Embedder
    metrics: Metrics
    board: HealthBoard
    clock: Callable[[], datetime] | None
    """Of schedules; None: the machine's and, for what is due, the database's."""
