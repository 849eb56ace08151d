"""The queries of operations, which are items of work."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.maintenance.model import Operation, OperationState

_KIND = "maintenance_operation:"
_STATE = """CASE i.state WHEN 'RUNNING' THEN 'RUNNING' WHEN 'SUCCEEDED' THEN 'SUCCEEDED' WHEN 'DEAD' THEN 'FAILED'
    WHEN 'CANCELLED' THEN 'FAILED' ELSE 'QUEUED' END"""
_COLUMNS = f"""i.item_id, i.user_id, i.payload, {_STATE} AS operation_state, i.result, i.errors, i.reason, i.attempt,
    i.created_at, i.started_at, i.finished_at"""
_FROM = f"""work_items i
    WHERE i.organization_id = $1 AND ($2::uuid IS NULL OR i.user_id = $2) AND starts_with(i.kind, '{_KIND}')"""
_NEVER_BEGUN = {"SCHEDULE_TO_START": "no server that has this service took it in time"}
"""Why it failed, where no attempt did."""

LISTING = Listing(
    {
        "service": Field("('backgroundServices/' || (i.payload ->> 'service'))", str),
        "operation": Field("(i.payload ->> 'operation')", str),
        "state": Field(_STATE, OperationState),
        "create_time": Field("i.created_at", datetime),
    },
    key="i.item_id",
    default_order="create_time desc",
)


def kind_of(service_id: str) -> str:
    """Of the items of work of a service's operations: only servers that have the service take them."""
    return f"{_KIND}{service_id}"


async def get(tx: Transaction, organization_id: UUID, owner: UUID | None, operation_id: UUID) -> Operation | None:
    """One operation. `owner` None: of anybody in the organization."""
    row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM {_FROM} AND i.item_id = $3", organization_id, owner, operation_id)
    return None if row is None else _operation(row)


async def list_operations(
    tx: Transaction, organization_id: UUID, owner: UUID | None, filter_text: str, order_by: str, page: PageRequest
) -> Page[Operation]:
    """A page of operations. Raises InvalidArgument."""
    clause = LISTING.sql(filter_text, order_by, page, start=3)
    rows = await tx.fetch(
        f"""SELECT {_COLUMNS}, {clause.cursor_sql} FROM {_FROM} AND {clause.where_sql} ORDER BY {clause.order_sql}""",
        organization_id,
        owner,
        *clause.args,
    )
    return clause.page(rows, _operation)


def _operation(row: Any) -> Operation:
    payload, errors = row["payload"], row["errors"]
    return Operation(
        row["item_id"],
        row["user_id"],
        payload["service"],
        payload["operation"],
        payload["arguments"],
        OperationState(row["operation_state"]),
        row["result"],
        errors[-1]["error"] if errors else _NEVER_BEGUN.get(row["reason"], ""),
        row["attempt"],
        row["created_at"],
        row["started_at"],
        row["finished_at"],
    )
