"""Operations: what people have background services do. Each is an item of work, so that it is done once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    StationmasterError,
    Unavailable,
)
from stationmaster_server.identity.model import AuditEntry, Category, owner_scope
from stationmaster_server.identity.roles import require_operator
from stationmaster_server.maintenance import operation_store, store
from stationmaster_server.maintenance.base import NotYet, Options
from stationmaster_server.maintenance.base import Operation as Offered
from stationmaster_server.maintenance.model import BY_DEFAULT, Operation, service_name
from stationmaster_server.maintenance.registry import Registry
from stationmaster_server.maintenance.service import RUN, Maintenance, check_options
from stationmaster_server.maintenance.waking import RunFailed, RunsElsewhere, held
from stationmaster_server.work.model import Failed, NewWork, Outcome, Released, RetryPolicy, Succeeded, Timeouts
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.run import Run

_RETRY = RetryPolicy(attempts=3)
_TIME_LIMIT = timedelta(hours=2, minutes=5)
"""Of an attempt: a run waits for the one that is under way on its server, and each may take an hour."""
_TIMEOUTS = Timeouts(
    schedule_to_start=timedelta(hours=1), start_to_close=_TIME_LIMIT, schedule_to_close=timedelta(days=7)
)
"""Within the first a server that has the service must have come; the last is for one that waits again and again."""
_ELSEWHERE_AGAIN = timedelta(seconds=1)
"""Until what another server runs, or cannot be done yet, is tried again."""
_FOR_ANOTHER = timedelta(minutes=10)
"""Until a server must have come whose service has the operation."""


class Operations:
    """Triggers and tells of operations, and is the handler of their work."""

    def __init__(
        self, database: Database, audit: AuditLog, queue: WorkQueue, maintenance: Maintenance, registry: Registry
    ) -> None:
        self._database = database
        self._audit = audit
        self._queue = queue
        self._maintenance = maintenance
        self._registry = registry

    async def trigger(self, caller: Caller, service_id: str, operation: str, arguments: Mapping[str, Any]) -> Operation:
        """Have an operation done.

        Raises NotFound, InvalidArgument, PermissionDenied, ResourceExhausted(QUEUE_FULL),
        FailedPrecondition(SERVICE_IS_ENGINE; SERVICE_HELD: a run of what is paused or switched off).
        """
        offered = self._offered(service_id, operation)
        if offered.for_operators:
            require_operator(caller, f"have {operation!r} done")
        check_options(offered.arguments, arguments, "arguments")
        tenant = caller.tenant
        payload = {"service": service_id, "operation": operation, "arguments": dict(arguments), "role": caller.role}
        work = NewWork(
            tenant.organization_id,
            tenant.user_id,
            operation_store.kind_of(service_id),
            tenant.user_id,
            payload,
            retry=_RETRY,
            timeouts=_TIMEOUTS,
        )
        refused = await self._refusal(service_id) if operation == RUN.name else None
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Operation)
            if again is not None:
                return again
            if refused is not None:
                raise refused
            item = await self._queue.submit(tx, work)
            details = {"service": service_name(service_id), "operation": operation}
            name = f"operations/{item.item_id}"
            entry = AuditEntry("operation.trigger", name, category=Category.SYSTEM, details=details)
            await self._audit.write(tx, caller, entry)
            made = await operation_store.get(tx, tenant.organization_id, tenant.user_id, item.item_id)
            if made is None:
                raise RuntimeError("an item that was submitted is not there")
            await remember(tx, tenant, caller.request_key, made)
        return made

    async def get(self, caller: Caller, operation_id: UUID) -> Operation:
        """One operation. Raises NotFound."""
        tenant = caller.tenant
        async with self._database.tenant(tenant, read=True) as tx:
            found = await operation_store.get(tx, tenant.organization_id, owner_scope(caller), operation_id)
        if found is None:
            raise NotFound("Operation", f"operations/{operation_id}")
        return found

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[Operation]:
        """A page of operations. Raises InvalidArgument."""
        tenant = caller.tenant
        async with self._database.tenant(tenant, read=True) as tx:
            return await operation_store.list_operations(
                tx, tenant.organization_id, owner_scope(caller), filter_text, order_by, page
            )

    async def __call__(self, run: Run) -> Outcome:
        """Carry an operation out."""
        payload, item = run.item.payload, run.item
        caller = _on_behalf(Tenant(item.organization_id, item.user_id), Role(payload["role"]), str(item.item_id))
        try:
            offered = self._here(payload["service"], payload["operation"])
            arguments = check_options(offered.arguments, payload["arguments"], "arguments")
            if offered.name != RUN.name:
                await self._registry.runner(payload["service"]).prepare()
            return Succeeded(dict(await offered.run(caller, arguments)))
        except NotYet as error:
            now, limit = datetime.now(UTC), error.give_up_after
            if limit is not None and now > item.created_at + limit:
                return Failed(str(error), retryable=False)
            return Released(now + _ELSEWHERE_AGAIN)
        except RunsElsewhere:
            return Released(datetime.now(UTC) + _ELSEWHERE_AGAIN)
        except RunFailed as error:  # the service itself tries again
            return Failed(str(error), retryable=False)
        except (InvalidArgument, NotFound, FailedPrecondition) as error:
            return Failed(error.message, retryable=False, reason=error.reason)
        except Unavailable as error:
            if error.reason is Reason.SERVER_STOPPING:
                return Released(datetime.now(UTC) + _ELSEWHERE_AGAIN)
            raise
        except StationmasterError as error:
            return Failed(error.message, reason=error.reason)

    def _here(self, service_id: str, operation: str) -> Offered[Any]:
        try:
            return self._offered(service_id, operation)
        except (
            InvalidArgument,
            NotFound,
        ) as error:  # another server took it, by its settings
            raise NotYet(error.message, give_up_after=_FOR_ANOTHER) from error

    def _offered(self, service_id: str, operation: str) -> Offered[Any]:
        service = self._maintenance.settable(service_id)
        runner = self._registry.runner(service_id)

        async def run(_caller: Caller, _arguments: Options) -> Mapping[str, Any]:
            await runner.run_now()
            return {}

        offered = [Offered(RUN.name, RUN.description, Options, run, RUN.for_operators), *service.operations()]
        found = next((one for one in offered if one.name == operation), None)
        if found is None:
            known = ", ".join(one.name for one in offered)
            raise InvalidArgument.field(
                "operation", f"{service_name(service_id)} has no such operation; it has {known}"
            )
        return found

    async def _refusal(self, service_id: str) -> FailedPrecondition | None:
        async with self._database.system(autocommit=True) as tx:
            stored = await store.all_settings(tx)
        return held(service_id, stored.get(service_id, BY_DEFAULT))


def _on_behalf(tenant: Tenant, role: Role, request_id: str) -> Caller:
    return Caller(tenant, role, frozenset(), None, f"users/{tenant.user_id}", request_id, "", "")
