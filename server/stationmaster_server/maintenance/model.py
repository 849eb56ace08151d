"""Background services as they are stored and told of. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID


class Scope(StrEnum):
    """Where a service runs."""

    EVERY_SERVER = "EVERY_SERVER"
    ONE_SERVER = "ONE_SERVER"  # under a lease for each run
    ENGINE = "ENGINE"  # on every server, by itself: it is seen, and neither held nor set


class ServiceState(StrEnum):
    """How a service is, the best first."""

    IDLE = "IDLE"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DISABLED = "DISABLED"
    FAILING = "FAILING"
    UNHEALTHY = "UNHEALTHY"


SILENT_FOR = timedelta(seconds=30)
"""A server that said nothing for so long is gone, or away: it may come back."""
FORGOTTEN_AFTER = timedelta(days=1)
"""So long after a server fell silent what it did becomes part of the totals, and its rows go."""
LONGEST_PAUSE = timedelta(minutes=5)
"""Between two attempts of a service that keeps failing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a service goes about, as operators changed it; None: by default."""

    enabled: bool = True
    paused: bool = False
    pause_reason: str = ""
    interval: timedelta | None = None
    max_failures: int | None = None
    retry_delay: timedelta | None = None
    alert_errors_per_hour: int | None = None
    alert_run_time: timedelta | None = None
    alert_memory_growth_bytes: int | None = None
    alert_handle_growth: int | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    etag: UUID | None = None
    updated_at: datetime | None = None

    @property
    def runs(self) -> bool:
        """Whether it is neither switched off nor held."""
        return self.enabled and not self.paused


BY_DEFAULT = Settings()


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds where operators say nothing."""

    interval: timedelta
    max_failures: int = 3
    retry_delay: timedelta = timedelta(seconds=2)
    alert_errors_per_hour: int = 20
    alert_run_time: timedelta = timedelta(minutes=5)
    """On average, of the last few runs."""
    alert_memory_growth_bytes: int = 256 * 1024**2
    alert_handle_growth: int = 50

    def of(self, settings: Settings) -> Policy:
        """What holds with these settings."""

        def chosen(name: str) -> Any:
            changed = getattr(settings, name)
            return getattr(self, name) if changed is None else changed

        return Policy(*(chosen(field.name) for field in fields(Policy)))

    def pause_after(self, failures: int) -> timedelta:
        """The pause after so many failures in a row."""
        if failures == 0:
            return self.interval
        doubled: int = 2 ** min(failures - 1, 20)
        return min(self.retry_delay * doubled, LONGEST_PAUSE)


COUNTS = ("completed", "failed", "retried", "restarted", "busy_seconds")
"""Of the figures, what is added up."""


@dataclass(slots=True)
class Figures:
    """What a service did on one server since that started."""

    state: ServiceState = ServiceState.IDLE
    completed: int = 0
    failed: int = 0
    retried: int = 0
    restarted: int = 0
    busy_seconds: float = 0.0
    failures_in_a_row: int = 0
    last_run_at: datetime | None = None
    last_success_at: datetime | None = None
    last_error: str = ""
    last_error_at: datetime | None = None
    recent_seconds: float = 0.0
    """That a run took, on average, of the last few."""
    memory_growth_bytes: int = 0
    """Left behind by its last runs, if each of them left some."""
    handle_growth: int = 0

    def since(self, before: Figures) -> Figures:
        """The same, with what was counted after `before`."""
        return replace(self, **{name: getattr(self, name) - getattr(before, name) for name in COUNTS})

    def took(self, seconds: float) -> None:
        """A run took so long."""
        self.busy_seconds += seconds
        self.recent_seconds = 0.8 * self.recent_seconds + 0.2 * seconds if self.recent_seconds else seconds


NOTHING = Figures()
"""Of a service that did nothing yet."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with a service."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class OnServer:
    """A service on one server."""

    server: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class TargetProgress:
    """How far something is that a service keeps in step; `waiting` changes are to come, the oldest for `lag`.

    `skipped` tasks cannot be in it as they are.
    """

    place: str
    cursor: str
    waiting: int
    lag: timedelta
    skipped: int
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class OperationHelp:
    """An operation that a service offers."""

    name: str
    description: str
    for_operators: bool
    arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service as callers see it."""

    service_id: str
    description: str
    scope: Scope
    policy: Policy
    settings: Settings
    own_settings: Mapping[str, Any]
    settings_help: Mapping[str, str]
    operations: tuple[OperationHelp, ...]
    totals: Figures
    errors_last_hour: int
    servers: tuple[OnServer, ...]
    targets: tuple[TargetProgress, ...] = ()

    @property
    def state(self) -> ServiceState:
        """Of several servers, the worst; of one that runs once for all, that of the last run."""
        if not self.settings.enabled:
            return ServiceState.DISABLED
        if self.settings.paused:
            return ServiceState.PAUSED
        servers = self.servers
        if self.scope is Scope.ONE_SERVER:  # how it was on others is long ago
            servers = tuple(sorted(servers, key=lambda one: _when(one.figures))[-1:])
        states = [one.figures.state for one in servers]
        return max(states, key=list(ServiceState).index, default=ServiceState.IDLE)


def _when(figures: Figures) -> float:
    return figures.last_run_at.timestamp() if figures.last_run_at else 0.0


class OperationState(StrEnum):
    """How an operation stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that a service was asked to do."""

    operation_id: UUID
    user_id: UUID
    service_id: str
    operation: str
    arguments: Mapping[str, Any]
    state: OperationState
    result: Mapping[str, Any] | None
    error: str
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Server:
    """A server process that has said something lately."""

    server: str
    version: str
    started_at: datetime
    seen_at: datetime
    resources: Mapping[str, float]
    encoder: str


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong, and what to do."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """How the installation is."""

    servers: tuple[Server, ...]
    sessions: Mapping[str, int]
    work: Mapping[str, int]
    oldest_due: timedelta
    database_bytes: int
    database_connections: int
    services: Mapping[str, int]
    alerts: tuple[Alert, ...]
    read_at: datetime


def service_name(service_id: str) -> str:
    """`backgroundServices/{service}`."""
    return f"backgroundServices/{service_id}"


@dataclass(frozen=True, slots=True)
class Changed:
    """What a request changed, for its repeats."""

    service_id: str
