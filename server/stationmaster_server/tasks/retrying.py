"""Failed executions, queued again: one, or many by a filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.identity.model import AuditEntry, owner_scope
from stationmaster_server.tasks import events, execution_store, listing_store
from stationmaster_server.tasks.executions import MOST_IN_AUDIT, Names
from stationmaster_server.tasks.model import FINAL, ExecutionState, execution_name, illegal_state
from stationmaster_server.tasks.services import TaskServices

MOST_RETRIED = 1000


async def retry(
    services: TaskServices, caller: Caller, execution_id: UUID | None, filter_text: str = ""
) -> Sequence[UUID]:
    """Queue failed executions again: one, or the oldest thousand of a filter, which run in their order.

    Raises NotFound, FailedPrecondition(ILLEGAL_TRANSITION), Aborted, InvalidArgument(INVALID_FILTER).
    """
    tenant = caller.tenant
    async with services.database.tenant(tenant) as tx:
        again = await recall(tx, tenant, caller.request_key, Names)
        if again is not None:
            return again.ids
        if execution_id:
            await _require_failed(tx, caller, execution_id)
            await services.queue.retry(tx, tenant.organization_id, execution_id)
            ids = [execution_id]
        else:
            failed = await _failed(tx, caller, filter_text)
            ids = await services.queue.retry_many(tx, tenant.organization_id, failed)
        queued = events.state_changed(ExecutionState.QUEUED, 0, "RETRIED")
        await services.log.hand_over(tx, tenant.organization_id, dict.fromkeys(ids, queued), None)
        details: dict[str, Any] = {}
        if ids:
            details = {"count": len(ids), "executions": [execution_name(one) for one in ids[:MOST_IN_AUDIT]]}
        resource = execution_name(execution_id) if execution_id else "executions"
        await services.audit.write(tx, caller, AuditEntry("execution.retry", resource, details=details))
        await remember(tx, tenant, caller.request_key, Names(list(ids)))
        return ids


async def _failed(tx: Transaction, caller: Caller, filter_text: str) -> Sequence[UUID]:
    if not filter_text:
        raise InvalidArgument.field("filter", 'name one execution, or give a filter such as `kind = "crawl"`')
    listing_store.LISTING.sql(filter_text, "", PageRequest(1))  # by itself: the parentheses below are ours
    page = await listing_store.list_executions(
        tx,
        caller.tenant.organization_id,
        owner_scope(caller),
        f'({filter_text}) AND state = "FAILED"',
        "create_time",
        PageRequest(MOST_RETRIED),
    )
    return [execution.id for execution in page.items]


async def _require_failed(tx: Transaction, caller: Caller, execution_id: UUID) -> None:
    execution = await execution_store.get(tx, caller.tenant.organization_id, execution_id, owner_scope(caller))
    if execution.state is not ExecutionState.FAILED:
        advice = "submit another one" if execution.state in FINAL else "wait for its end, or cancel it"
        raise illegal_state(execution_name(execution_id), execution.state, "QUEUED", advice)
