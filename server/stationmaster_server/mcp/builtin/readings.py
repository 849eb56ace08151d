"""What the server `monitoring` reads: an organization's own figures, and for administrators those of the process."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from uuid import UUID

from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import PermissionDenied, Reason
from stationmaster_server.identity import quota_store
from stationmaster_server.identity import store as identity_store
from stationmaster_server.identity.model import Role, rank
from stationmaster_server.mcp.builtin import text
from stationmaster_server.mcp.builtin.figures import HealthReading, SessionReading
from stationmaster_server.work import store as work_store
from stationmaster_server.work.model import WorkItem

_MAX_DEAD = 20
_MAX_SAMPLES = 200
_MAX_ERROR = 500
_WHOLE_SERVER = "(whole server)"
_DETAIL = ("_bucket", "_created")  # of a histogram its count and sum are told


class Health(BaseModel):
    """How the server process that answers is."""

    healthy: bool
    services: dict[str, bool]
    missing: dict[str, str]
    database_latency_ms: float | None


class Sample(BaseModel):
    """One number."""

    name: str
    labels: dict[str, str]
    value: float


class MetricSamples(BaseModel):
    """Numbers of the server process that answers."""

    samples: list[Sample]
    truncated: bool


class Queue(BaseModel):
    """Work items of one kind in one state, and for how many seconds the oldest has been due."""

    kind: str
    state: str
    count: int
    oldest_seconds: float


class DeadItem(BaseModel):
    """Work that failed for good."""

    item_id: str
    kind: str
    reason: str
    attempts: int
    error: str
    ended: str


class Queues(BaseModel):
    """The work items of the organization, or of the caller."""

    of: str
    queues: list[Queue]
    dead: list[DeadItem]


class SessionsOverview(BaseModel):
    """The sessions of the organization, or of the caller, and their cost on this day (UTC)."""

    of: str
    sessions: dict[str, int]
    open_turns: dict[str, int]
    waiting_permissions: int
    oldest_permission_seconds: float | None
    cost_micros_today: int


class Monitoring:
    """Reads the figures for a tenant: an organization's own, and those of its members for administrators only."""

    def __init__(
        self, database: Database, registry: CollectorRegistry, health: HealthReading, sessions: SessionReading
    ) -> None:
        self._database = database
        self._registry = registry
        self._health = health
        self._sessions = sessions

    async def health(self, tenant: Tenant) -> Health:
        """How this process is; of administrators only."""
        await self._require_administrator(tenant)
        figures = self._health()
        began = time.perf_counter()
        await self._database.ping()
        return Health(
            healthy=figures.services.get("", not figures.missing),
            services={name or _WHOLE_SERVER: serving for name, serving in figures.services.items()},
            missing=dict(figures.missing),
            database_latency_ms=round((time.perf_counter() - began) * 1000, 3),
        )

    async def metrics(self, tenant: Tenant, prefix: str) -> MetricSamples:
        """The samples whose names begin so; of administrators only."""
        await self._require_administrator(tenant)
        samples = [
            Sample(name=sample.name, labels=dict(sample.labels), value=sample.value)
            for metric in self._registry.collect()
            for sample in metric.samples
            if sample.name.startswith(prefix) and not sample.name.endswith(_DETAIL)
        ]
        return MetricSamples(samples=samples[:_MAX_SAMPLES], truncated=len(samples) > _MAX_SAMPLES)

    async def queues(self, tenant: Tenant, kind: str) -> Queues:
        """Work by kind and state, and the newest that died."""
        owner = await self._owner(tenant)
        async with self._database.tenant(tenant, read=True) as tx:
            stats = await work_store.stats(tx, tenant.organization_id, owner=owner)
            dead = await work_store.list_dead(tx, tenant.organization_id, kind or None, limit=_MAX_DEAD, owner=owner)
        queues = [
            Queue(kind=queue.kind, state=queue.state.value, count=queue.count, oldest_seconds=_age(queue.oldest))
            for queue in stats
            if kind in ("", queue.kind)
        ]
        return Queues(of=_whose(owner), queues=queues, dead=[_dead(item) for item in dead])

    async def sessions(self, tenant: Tenant) -> SessionsOverview:
        """Sessions and open turns by state, what waits for a permission, what this day cost."""
        owner = await self._owner(tenant)
        subject = owner or tenant.organization_id
        async with self._database.tenant(tenant, read=True) as tx:
            figures = await self._sessions(tx, tenant.organization_id, owner)
            used = await quota_store.get_used(tx, tenant.organization_id, [subject])
        oldest = figures.oldest_permission
        return SessionsOverview(
            of=_whose(owner),
            sessions=dict(figures.sessions),
            open_turns=dict(figures.open_turns),
            waiting_permissions=figures.waiting_permissions,
            oldest_permission_seconds=None if oldest is None else _age(oldest),
            cost_micros_today=used[subject].today.cost_micros,
        )

    async def _administers(self, tenant: Tenant) -> bool:
        async with self._database.tenant(tenant, read=True) as tx:
            user = await identity_store.get_user(tx, tenant.organization_id, tenant.user_id)
        if user is None or user.disabled_at is not None:
            raise PermissionDenied(Reason.USER_DISABLED, "this user is disabled or gone; use another one")
        return rank(user.role) >= rank(Role.ADMIN)

    async def _require_administrator(self, tenant: Tenant) -> None:
        if not await self._administers(tenant):
            raise PermissionDenied(
                Reason.ROLE_INSUFFICIENT,
                "numbers of the server process are for owners and administrators; `queues` and `sessions` are for all",
            )

    async def _owner(self, tenant: Tenant) -> UUID | None:
        """Whose numbers the tenant sees; None: those of the whole organization."""
        return None if await self._administers(tenant) else tenant.user_id


def _whose(owner: UUID | None) -> str:
    return "the organization" if owner is None else "the caller"


def _dead(item: WorkItem) -> DeadItem:
    last = item.errors[-1] if item.errors else {}
    return DeadItem(
        item_id=str(item.item_id),
        kind=item.kind,
        reason=item.reason or "",
        attempts=item.attempt,
        error=text.cut(str(last.get("error", "")), _MAX_ERROR),
        ended=item.finished_at.isoformat(timespec="seconds") if item.finished_at else "",
    )


def _age(since: datetime) -> float:
    return max(0.0, round((datetime.now(UTC) - since).total_seconds(), 1))
