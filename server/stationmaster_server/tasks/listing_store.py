"""The list of executions: what it can be filtered by, so that indexes serve. `owner` None: all of the organization."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.execution_row_store import JOINED, SHORT, STATE, to_execution
from stationmaster_server.tasks.model import Execution, ExecutionState, Trigger

# `STATE` the other way round, of columns that have indexes.
_STATE_IS = {
    ExecutionState.BLOCKED: "i.state IN ('WAITING', 'QUEUED') AND e.blocked",
    ExecutionState.QUEUED: "i.state = 'SUSPENDED' OR i.state IN ('WAITING', 'QUEUED') AND NOT e.blocked",
    ExecutionState.RUNNING: "i.state = 'RUNNING'",
    ExecutionState.SUCCEEDED: "i.state = 'SUCCEEDED'",
    ExecutionState.FAILED: "i.state = 'DEAD'",
    ExecutionState.CANCELLED: "i.state = 'CANCELLED'",
}


def _task_is(name: str, bind: Callable[[object], str]) -> str:
    collection, _, task_id = name.partition("/")
    return f"e.task_id = {bind(task_id)}" if collection == "tasks" else "false"


def _state_is(state: str, bind: Callable[[object], str]) -> str:
    return _STATE_IS[ExecutionState(state)]


LISTING = Listing(
    {
        "task": Field("('tasks/' || e.task_id)", str, _task_is),
        "kind": Field("e.kind", str),
        "state": Field(STATE, ExecutionState, _state_is),
        "trigger": Field("e.trigger", Trigger),
        "labels": Field("e.labels", dict),
        "reason": Field("i.reason", str),
        "create_time": Field("e.created_at", datetime),
        "start_time": Field("i.started_at", datetime),
        "end_time": Field("i.finished_at", datetime),
    },
    key="e.id",
    default_order="create_time desc",
    order_fields=["create_time"],
)


async def list_executions(
    tx: Transaction,
    organization_id: UUID,
    owner: UUID | None,
    filter_text: str,
    order_by: str,
    page: PageRequest,
) -> Page[Execution]:
    """A page of executions, without payloads, variables and results."""
    clause = LISTING.sql(filter_text, order_by, page, start=3)
    rows = await tx.fetch(
        f"""SELECT {SHORT}, {clause.cursor_sql} FROM {JOINED} AND ($2::uuid IS NULL OR e.user_id = $2)
            AND {clause.where_sql} ORDER BY {clause.order_sql}""",
        organization_id,
        owner,
        *clause.args,
    )
    return clause.page(rows, to_execution)
