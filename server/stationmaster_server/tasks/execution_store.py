"""The queries of executions: their rows beside those of their work items. `owner` None: all of the organization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import NotFound
from stationmaster_server.events.store import begin_streams, encode_body
from stationmaster_server.tasks import events
from stationmaster_server.tasks.execution_row_store import JOINED, STATE, WHOLE, to_execution
from stationmaster_server.tasks.model import (
    Execution,
    ExecutionState,
    RanIn,
    ReportFormat,
    Spec,
    Task,
    Trigger,
    execution_name,
)


@dataclass(frozen=True, slots=True)
class NewRow:
    """What is stored of an execution beside its work item. `template`: the payload is filled in when it begins.

    `blocked_by`: what it waits for, in words; empty: nothing.
    """

    id: UUID
    payload: dict[str, Any]
    variables: dict[str, Any]
    labels: dict[str, str]
    report_formats: Sequence[ReportFormat]
    kind: str
    task_id: str | None = None
    task_uid: UUID | None = None
    scheduled_for: datetime | None = None
    template: bool = False
    blocked_by: str = ""
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def blocked(self) -> bool:
        """Whether it waits for other tasks."""
        return bool(self.blocked_by)


def new_row(
    execution_id: UUID,
    spec: Spec,
    *,
    task: Task | None = None,
    variables: Mapping[str, Any] | None = None,
    blocked_by: str = "",
) -> NewRow:
    """The row of a new execution, of a task or by itself."""
    return NewRow(
        id=execution_id,
        payload=dict(spec.payload),
        secrets=spec.secrets,
        variables=dict(variables or {}),
        labels=dict(spec.labels),
        report_formats=spec.options.report_formats,
        kind=spec.kind,
        task_id=task.task_id if task else None,
        task_uid=task.uid if task else None,
        blocked_by=blocked_by,
    )


_INSERT = f"""
WITH new AS (
    SELECT * FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
                         $11::uuid[], $12::timestamptz[], $13::boolean[], $14::boolean[], $15::text[],
                         $16::text[])
        AS n(id, kind, payload, variables, labels, report_formats, task_id, task_uid, scheduled_for, template, blocked,
             secrets, first_event)
), first AS (
    SELECT id AS stream_id, '{events.STATE_CHANGED}' AS kind, first_event AS body FROM new
), {begin_streams("first")}
INSERT INTO executions (organization_id, user_id, trigger, id, kind, payload, variables, labels, report_formats,
                        task_id, task_uid, scheduled_for, template, blocked, secrets)
SELECT $1, $2, $3, id, kind, payload::json, variables::json, labels::jsonb,
       COALESCE(string_to_array(report_formats, ','), '{{}}'), task_id, task_uid, scheduled_for, template, blocked,
       secrets::json
FROM new
"""


async def insert(
    tx: Transaction, organization_id: UUID, user_id: UUID, trigger: Trigger, rows: Sequence[NewRow]
) -> None:
    """New executions of one user, with their streams; their work items are in the same transaction."""
    await tx.execute(
        _INSERT,
        organization_id,
        user_id,
        trigger,
        [row.id for row in rows],
        [row.kind for row in rows],
        [_json(row.payload) for row in rows],
        [_json(row.variables) for row in rows],
        [_json(row.labels) for row in rows],
        [",".join(row.report_formats) or None for row in rows],
        [row.task_id for row in rows],
        [row.task_uid for row in rows],
        [row.scheduled_for for row in rows],
        [row.template for row in rows],
        [row.blocked for row in rows],
        [_json(dict(row.secrets)) for row in rows],
        [_first_event(row.blocked_by) for row in rows],
    )


async def get(tx: Transaction, organization_id: UUID, execution_id: UUID, owner: UUID | None) -> Execution:
    """One execution with everything. Raises NotFound alike for one that is missing and one that is somebody else's."""
    row = await tx.fetchrow(
        f"SELECT {WHOLE} FROM {JOINED} AND e.id = $2 AND ($3::uuid IS NULL OR e.user_id = $3)",
        organization_id,
        execution_id,
        owner,
    )
    if row is None:
        raise NotFound("Execution", execution_name(execution_id))
    return to_execution(row)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an execution stands, and the newest sequence of its stream."""

    state: ExecutionState
    last_sequence: int


async def standing(tx: Transaction, organization_id: UUID, execution_id: UUID, owner: UUID | None) -> Standing:
    """What watchers ask for at every keepalive: small, whatever the execution is given and answers. Raises NotFound."""
    row = await tx.fetchrow(
        f"""SELECT {STATE} AS execution_state, s.last_sequence
            FROM executions e JOIN work_items i ON i.organization_id = e.organization_id AND i.item_id = e.id
            JOIN streams s ON s.organization_id = e.organization_id AND s.stream_id = e.id
            WHERE e.organization_id = $1 AND e.id = $2 AND ($3::uuid IS NULL OR e.user_id = $3)""",
        organization_id,
        execution_id,
        owner,
    )
    if row is None:
        raise NotFound("Execution", execution_name(execution_id))
    return Standing(ExecutionState(row["execution_state"]), row["last_sequence"])


async def get_many(tx: Transaction, organization_id: UUID, execution_ids: Sequence[UUID]) -> list[Execution]:
    """Those of the executions that there are, with everything."""
    sql = f"SELECT {WHOLE} FROM {JOINED} AND e.id = ANY($2::uuid[])"
    return [to_execution(row) for row in await tx.fetch(sql, organization_id, list(execution_ids))]


async def secrets_of(
    tx: Transaction, organization_id: UUID, execution_ids: Sequence[UUID]
) -> dict[UUID, dict[str, Any]]:
    """What the masks in the payloads of executions stand for, by JSON pointer."""
    sql = "SELECT id, secrets FROM executions WHERE organization_id = $1 AND id = ANY($2::uuid[])"
    return {row["id"]: row["secrets"] for row in await tx.fetch(sql, organization_id, list(execution_ids))}


async def hold_end(tx: Transaction, organization_id: UUID, execution_id: UUID) -> datetime | None:
    """When an execution ended, and it stays as it is to the end of the transaction; None: it has not, or is gone."""
    ended_at: datetime | None = await tx.fetchval(
        "SELECT finished_at FROM work_items WHERE organization_id = $1 AND item_id = $2 FOR SHARE",
        organization_id,
        execution_id,
    )
    return ended_at


async def is_taken(tx: Transaction, organization_id: UUID, item_id: UUID) -> bool:
    """Whether anything that has a stream or is work has this id: an execution, a session, a turn."""
    sql = """SELECT EXISTS (SELECT FROM streams WHERE organization_id = $1 AND stream_id = $2)
                 OR EXISTS (SELECT FROM work_items WHERE organization_id = $1 AND item_id = $2)"""
    return bool(await tx.fetchval(sql, organization_id, item_id))


async def delete(tx: Transaction, organization_id: UUID, execution_id: UUID) -> RanIn | None:
    """Remove an execution's row, not its stream; returns where it ran, None: there was none."""
    row = await tx.fetchrow(
        """DELETE FROM executions WHERE organization_id = $1 AND id = $2
           RETURNING session_id, turn_id, keep_session""",
        organization_id,
        execution_id,
    )
    return None if row is None else RanIn(*row)


async def leave(tx: Transaction, organization_id: UUID, execution_id: UUID) -> UUID | None:
    """The execution waits for no turn any more; returns the id of what it begins next, None: it is gone."""
    left: UUID | None = await tx.fetchval(
        """UPDATE executions SET turn_id = NULL, conversation_id = gen_random_uuid()
           WHERE organization_id = $1 AND id = $2 RETURNING conversation_id""",
        organization_id,
        execution_id,
    )
    return left


async def unblock(tx: Transaction, organization_id: UUID, execution_ids: Sequence[UUID]) -> None:
    """Write that executions do not, or no longer, wait for the tasks that theirs depends on."""
    sql = "UPDATE executions SET blocked = false WHERE organization_id = $1 AND id = ANY($2::uuid[]) AND blocked"
    await tx.execute(sql, organization_id, list(execution_ids))


async def blocked_of(tx: Transaction, organization_id: UUID, *task_ids: str) -> list[UUID]:
    """The executions of tasks that wait for others and have not ended, in their order."""
    sql = f"""SELECT e.id FROM {JOINED} AND e.task_id = ANY($2::text[]) AND e.blocked
              AND i.state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED') ORDER BY e.id"""
    return [row["id"] for row in await tx.fetch(sql, organization_id, list(task_ids))]


async def tasks_of(tx: Transaction, organization_id: UUID, execution_ids: Sequence[UUID]) -> dict[str, bool]:
    """The tasks of executions; of each, whether one of them failed that its schedule had begun."""
    rows = await tx.fetch(
        f"""SELECT e.task_id, bool_or(e.trigger = 'SCHEDULE' AND i.state = 'DEAD') FROM {JOINED}
            AND e.id = ANY($2::uuid[]) AND e.task_id IS NOT NULL GROUP BY 1""",
        organization_id,
        list(execution_ids),
    )
    return {row[0]: row[1] for row in rows}


# By the index of what has not ended: of a task that ran often, nearly all has.
OPEN = """
SELECT e.id FROM work_items i JOIN executions e ON e.organization_id = i.organization_id AND e.id = i.item_id
WHERE i.organization_id = $1 AND i.subject_id = $2 AND i.follow_up
  AND i.state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED') AND (NOT $3 OR e.trigger = 'SCHEDULE')
ORDER BY e.created_at, e.id
"""


async def open_of(tx: Transaction, organization_id: UUID, task_uid: UUID, *, scheduled: bool = False) -> list[UUID]:
    """The executions of a task that have not ended (`scheduled`: that its schedule began), the oldest first."""
    rows = await tx.fetch(
        OPEN,
        organization_id,
        task_uid,
        scheduled,
    )
    return [row["id"] for row in rows]


async def last_begun(tx: Transaction, organization_id: UUID, task_uid: UUID) -> datetime | None:
    """When the newest execution of a task was submitted; None when there is none."""
    at: datetime | None = await tx.fetchval(
        "SELECT max(created_at) FROM executions WHERE organization_id = $1 AND task_uid = $2", organization_id, task_uid
    )
    return at


async def times_of(tx: Transaction, organization_id: UUID, task_uid: UUID, times: Sequence[datetime]) -> set[datetime]:
    """Those of the due times that a task was executed for."""
    rows = await tx.fetch(
        """SELECT scheduled_for FROM executions
           WHERE organization_id = $1 AND task_uid = $2 AND scheduled_for = ANY($3::timestamptz[])""",
        organization_id,
        task_uid,
        list(times),
    )
    return {row["scheduled_for"] for row in rows}


@lru_cache(64)
def _first_event(blocked_by: str) -> str:
    state = ExecutionState.BLOCKED if blocked_by else ExecutionState.QUEUED
    return encode_body(events.state_changed(state, 0, message=blocked_by).body)


def _json(value: dict[str, Any]) -> str:
    return to_json(value).decode()
