"""The rules of background services: who may see and change what, and how the installation is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import starmap
from typing import Any

from pydantic import ValidationError

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PreconditionViolation,
    Reason,
)
from stationmaster_server.identity.model import AuditEntry, Caller, Category
from stationmaster_server.identity.roles import require_operator
from stationmaster_server.maintenance import status_store, store
from stationmaster_server.maintenance.base import BackgroundService, Options, help_of
from stationmaster_server.maintenance.model import (
    BY_DEFAULT,
    SILENT_FOR,
    Alert,
    Changed,
    Figures,
    OperationHelp,
    Scope,
    Server,
    ServiceState,
    ServiceView,
    Settings,
    SystemStatus,
    TargetProgress,
    service_name,
)
from stationmaster_server.maintenance.shared import Shared
from stationmaster_server.maintenance.thresholds import faults
from stationmaster_server.tasks.sync import store as sync_store
from stationmaster_server.tasks.sync.model import Progress
from stationmaster_server.wire.faults import violations

WATCH_EVERY = 1.0
"""Seconds between two looks of a watcher."""
_AGE = timedelta(seconds=0.9 * WATCH_EVERY)
"""Of what watchers see."""
LATE_AFTER = timedelta(minutes=1)
"""Work that has been due for so long, and that nobody has begun, is something to look at."""
RUN = OperationHelp("run", "Run at once, though it is not due.", for_operators=True, arguments={})
"""What every service can be had to do."""


class Maintenance:
    """Sees and changes background services, for operators."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        services: Callable[[], Mapping[str, BackgroundService[Any]]],
        keepalive: timedelta,
        missing: Callable[[], Mapping[str, str]],
    ) -> None:
        """`services`: all there are, by id. `missing`: what this server needs and has not, and why."""
        self._database = database
        self._audit = audit
        self._services = services
        self._missing = missing
        self._keepalive = keepalive.total_seconds()
        self._watched = Shared(self._views, _AGE)
        self._counts = Shared(self._count, _AGE)

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[ServiceView]:
        """A page of services, by id by default. Raises InvalidArgument, PermissionDenied."""
        _require_operator(caller)
        views = {view.service_id: view for view in await self._views()}
        async with self._database.system(autocommit=True) as tx:
            found = await store.list_of(tx, list(views.values()), filter_text, order_by, page)
        items = [views[service_id] for service_id in found.items]
        return Page(items, found.next_cursor, found.cursors)

    async def get(self, caller: Caller, service_id: str) -> ServiceView:
        """One service. Raises NotFound, PermissionDenied."""
        _require_operator(caller)
        self.service(service_id)
        return next(view for view in await self._views() if view.service_id == service_id)

    def service(self, service_id: str) -> BackgroundService[Any]:
        """A service of this server. Raises NotFound."""
        found = self._services().get(service_id)
        if found is None:
            there_are = ", ".join(sorted(self._services()))
            raise NotFound("BackgroundService", service_name(service_id), f"there are: {there_are}")
        return found

    def settable(self, service_id: str) -> BackgroundService[Any]:
        """A service that can be held, set and triggered. Raises NotFound, FailedPrecondition(SERVICE_IS_ENGINE)."""
        service = self.service(service_id)
        if service.scope is Scope.ENGINE:
            name, advice = service_name(service_id), "it goes on by itself for as long as the server runs"
            raise FailedPrecondition(
                Reason.SERVICE_IS_ENGINE,
                f"{name} is an engine of the server, which is neither held nor set nor triggered: {advice}",
                PreconditionViolation("BACKGROUND_SERVICE", name, advice),
            )
        return service

    async def update(self, caller: Caller, service_id: str, changes: Mapping[str, Any], etag: str) -> ServiceView:
        """Change settings.

        Raises NotFound, InvalidArgument, Aborted(ETAG_MISMATCH), FailedPrecondition(SERVICE_IS_ENGINE),
        PermissionDenied.
        """
        _require_operator(caller)
        service = self.settable(service_id)
        if "own" in changes:
            own = check_options(service.options, changes["own"], "background_service.settings")
            # Whoever writes back what was read does not hold on to what was the default then.
            changes = {**changes, "own": own.model_dump(mode="json", exclude_defaults=True)}
        details = {"changed": sorted("settings" if name == "own" else name for name in changes)}
        return await self._change(caller, service_id, "background_service.update", changes, details, etag)

    async def pause(self, caller: Caller, service_id: str, reason: str) -> ServiceView:
        """Hold a service on every server; without a reason one that is paused keeps its own.

        Raises NotFound, FailedPrecondition(SERVICE_IS_ENGINE), PermissionDenied.
        """
        _require_operator(caller)
        self.settable(service_id)
        changes: dict[str, Any] = {"paused": True}
        if reason:
            changes["pause_reason"] = reason
        return await self._change(caller, service_id, "background_service.pause", changes, {"reason": reason})

    async def resume(self, caller: Caller, service_id: str) -> ServiceView:
        """Let a service go on at once. Raises NotFound, FailedPrecondition(SERVICE_IS_ENGINE), PermissionDenied."""
        _require_operator(caller)
        self.settable(service_id)
        changes = {"paused": False, "pause_reason": ""}
        return await self._change(caller, service_id, "background_service.resume", changes, {})

    async def watch(self, caller: Caller) -> AsyncGenerator[Sequence[ServiceView], None]:
        """All services, then those that changed; none of them now and then. Raises PermissionDenied."""
        _require_operator(caller)
        known: dict[str, ServiceView] = {}
        silent = 0.0
        while True:
            views = {view.service_id: view for view in await self._watched.get()}
            changed = [view for service_id, view in views.items() if known.get(service_id) != view]
            if changed or silent >= self._keepalive:
                yield changed
                silent = 0.0
            known = views
            await asyncio.sleep(WATCH_EVERY)
            silent += WATCH_EVERY

    async def status(self, caller: Caller, *, watched: bool = False) -> SystemStatus:
        """How the installation is; `watched`: for somebody who looks again and again. Raises PermissionDenied."""
        _require_operator(caller)
        views = await (self._watched.get() if watched else self._views())
        counts = await (self._counts.get() if watched else self._count())
        async with self._database.system(autocommit=True) as tx:
            servers = await status_store.servers(tx, SILENT_FOR)
        return SystemStatus(
            servers,
            counts.sessions,
            counts.work,
            counts.oldest_due,
            counts.database_bytes,
            counts.connections,
            Counter(view.state for view in views),
            (
                *starmap(Alert, sorted(self._missing().items())),
                *_alerts(views),
                *_late(counts.oldest_due),
                *_apart(servers),
            ),
            counts.now,
        )

    async def _count(self) -> status_store.Counts:
        async with self._database.system(autocommit=True) as tx:
            return await status_store.counts(tx)

    async def _views(self) -> Sequence[ServiceView]:
        async with self._database.system(autocommit=True) as tx:
            settings = await store.all_settings(tx)
            figures = await store.all_figures(tx)
            services = self._services()
            errors = await store.errors_last_hour(tx, list(services))
            targets = await sync_store.progress(tx)
        return [
            replace(
                view_of(
                    service, settings.get(name, BY_DEFAULT), *figures.get(name, (Figures(), [])), errors.get(name, 0)
                ),
                targets=tuple(_target(one) for one in targets.get(name, ())),
            )
            for name, service in services.items()
        ]

    async def _change(
        self,
        caller: Caller,
        service_id: str,
        action: str,
        changes: Mapping[str, Any],
        details: dict[str, Any],
        etag: str = "",
    ) -> ServiceView:
        async with self._database.system() as tx:
            if await recall(tx, caller.tenant, caller.request_key, Changed) is None:
                await self._write(tx, caller, service_id, changes, etag)
                entry = AuditEntry(action, service_name(service_id), category=Category.SYSTEM, details=details)
                await self._audit.write(tx, caller, entry)
                await remember(tx, caller.tenant, caller.request_key, Changed(service_id))
        return await self.get(caller, service_id)

    async def _write(
        self, tx: Transaction, caller: Caller, service_id: str, changes: Mapping[str, Any], etag: str
    ) -> None:
        old = await store.lock_settings(tx, service_id) or BY_DEFAULT
        if etag and etag != etag_of(old):
            text = f"{service_name(service_id)} has changed; read it again and decide anew"
            raise Aborted(Reason.ETAG_MISMATCH, text)
        await store.put_settings(tx, service_id, replace(old, **changes))


def view_of(
    service: BackgroundService[Any], settings: Settings, totals: Figures, servers: list[Any], errors: int
) -> ServiceView:
    """A service as callers see it."""
    return ServiceView(
        service.service_id,
        service.description,
        service.scope,
        service.policy.of(settings),
        settings,
        _own(service.options, settings.own),
        help_of(service.options),
        _offered(service),
        totals,
        errors,
        tuple(servers),
    )


def _own(options: type[Options], stored: Mapping[str, Any]) -> dict[str, Any]:
    """What holds; what another version stored that this one does not take is shown as it is, for it is to be mended."""
    try:
        return options.model_validate(dict(stored)).model_dump(mode="json")
    except ValidationError:
        return {**options().model_dump(mode="json"), **stored}


def _target(one: Progress) -> TargetProgress:
    lag = timedelta(seconds=max(one.lag_seconds, 0.0))
    return TargetProgress(one.place, one.cursor, one.waiting, lag, one.skipped, one.seen_at)


def _offered(service: BackgroundService[Any]) -> tuple[OperationHelp, ...]:
    if service.scope is Scope.ENGINE:
        return ()
    return (RUN, *(operation.help() for operation in service.operations()))


def etag_of(settings: Settings) -> str:
    """What changes with every change."""
    return str(settings.etag) if settings.etag else "default"


def check_options(options: type[Options], given: Mapping[str, Any], field: str) -> Options:
    """What a service or an operation was told. Raises InvalidArgument naming all that is wrong."""
    try:
        return options.model_validate(dict(given))
    except ValidationError as error:
        found = violations(field, options, error.errors(include_url=False, include_input=False))
        raise InvalidArgument.fields(found) from None


def _alerts(views: Sequence[ServiceView]) -> Iterator[Alert]:
    for view in views:
        name = service_name(view.service_id)
        if view.state is ServiceState.PAUSED:
            why = f": {view.settings.pause_reason}" if view.settings.pause_reason else ""
            yield Alert(name, f"it is paused{why}; resume it")
        elif view.settings.runs:
            yield from (Alert(name, text) for text in _faults(view).values())


def _faults(view: ServiceView) -> dict[str, str]:
    """What is wrong with a service on any server, each kind once."""
    found = {
        fault.kind: f"{fault.text} ({one.server})"
        for one in view.servers
        for fault in faults(one.figures, view.policy, 0)
        if fault.kind != "failing" or view.state is ServiceState.UNHEALTHY
    }
    silent = [one.server for one in view.servers if one.figures.state is ServiceState.UNHEALTHY]
    if view.scope is Scope.ENGINE and silent and "failing" not in found:
        found["silent"] = f"it does not go round any more ({silent[0]}): restart this server"
    most = view.policy.alert_errors_per_hour
    if 0 < most <= view.errors_last_hour:
        found["errors"] = f"it failed {view.errors_last_hour} times within the last hour: {view.totals.last_error}"
    return found


def _late(oldest_due: timedelta) -> list[Alert]:
    if oldest_due < LATE_AFTER:
        return []
    seconds = int(oldest_due.total_seconds())
    return [Alert("work", f"an item has waited {seconds} s for a worker: add servers, or raise work.slots")]


def _apart(servers: Sequence[Server]) -> list[Alert]:
    encoders = sorted({one.encoder for one in servers})
    if len(encoders) < 2:
        return []
    text = f"servers make vectors by different encoders ({', '.join(encoders)}): what one embeds, others do not find"
    return [Alert("embedding", f"{text} by meaning; give all the same settings [embedding], and the model's files")]


def _require_operator(caller: Caller) -> None:
    require_operator(caller, "see and change its background services")
