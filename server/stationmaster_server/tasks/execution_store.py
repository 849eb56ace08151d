"""The queries of executions: their rows beside those of their work items. `owner` None: all of the organization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import NotFound
from stationmaster_server.tasks.dependency_store import WAITS_FOR
from stationmaster_server.tasks.events import MAX_LOG_CHARACTERS
from stationmaster_server.tasks.model import (
    DEPENDENCY_FAILED,
    Attempt,
    Execution,
    ExecutionState,
    Priority,
    Progress,
    ReportFormat,
    Trigger,
    execution_name,
)

# How an execution stands follows from its work item.
STATE = """(CASE i.state WHEN 'WAITING' THEN CASE WHEN e.blocked THEN 'BLOCKED' ELSE 'QUEUED' END
     WHEN 'QUEUED' THEN CASE WHEN e.blocked THEN 'BLOCKED' ELSE 'QUEUED' END
     WHEN 'SUSPENDED' THEN 'QUEUED' WHEN 'DEAD' THEN 'FAILED' ELSE i.state END)"""
LISTING = Listing(
    {
        "task": Field("('tasks/' || e.task_id)", str),
        "kind": Field("e.kind", str),
        "state": Field(STATE, ExecutionState),
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
_SHORT = f"""
    e.id, e.user_id, e.task_id, e.kind, e.trigger, e.scheduled_for, e.labels, e.report_formats, e.session_id,
    e.created_at, {STATE} AS execution_state, i.reason, i.priority, i.attempt, i.progress, i.cancel_requested,
    i.run_at, i.started_at, i.finished_at, i.errors -> -1 AS last_error, {WAITS_FOR} AS waits_for"""
_WHOLE = f"""{_SHORT}, e.payload, e.variables, i.result, i.errors,
    (SELECT last_sequence FROM streams s WHERE s.organization_id = e.organization_id AND s.stream_id = e.id)
        AS last_sequence,
    ARRAY(SELECT r.id FROM reports r WHERE r.organization_id = e.organization_id AND r.execution_id = e.id
          ORDER BY r.created_at) AS report_ids"""
JOINED = """executions e JOIN work_items i ON i.organization_id = e.organization_id AND i.item_id = e.id
    WHERE e.organization_id = $1"""


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


# A stream that begins is nobody else's yet: so rows, streams and first events are one round trip.
_INSERT = """
WITH new AS (
    SELECT * FROM unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
                         $11::uuid[], $12::timestamptz[], $13::boolean[], $14::text[], $15::text[])
        AS n(id, kind, payload, variables, labels, report_formats, task_id, task_uid, scheduled_for, template,
             blocked_by, secrets)
), stream AS (
    INSERT INTO streams (organization_id, stream_id, last_sequence) SELECT $1, id, 1 FROM new ON CONFLICT DO NOTHING
), event AS (
    INSERT INTO events (organization_id, stream_id, sequence, created_at, kind, body)
    SELECT $1, id, 1, now(), 'execution_state_changed',
           CASE WHEN blocked_by IS NULL THEN json_build_object('state', 'QUEUED', 'attempt', 0)
                ELSE json_build_object('state', 'BLOCKED', 'attempt', 0, 'message', blocked_by) END
    FROM new WHERE NOT EXISTS (SELECT FROM streams s WHERE s.organization_id = $1 AND s.stream_id = new.id)
)
INSERT INTO executions (organization_id, user_id, trigger, id, kind, payload, variables, labels, report_formats,
                        task_id, task_uid, scheduled_for, template, blocked, secrets)
SELECT $1, $2, $3, id, kind, payload::json, variables::json, labels::jsonb,
       COALESCE(string_to_array(report_formats, ','), '{}'), task_id, task_uid, scheduled_for, template,
       blocked_by IS NOT NULL, secrets::json
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
        [row.blocked_by[:MAX_LOG_CHARACTERS] or None for row in rows],
        [_json(dict(row.secrets)) for row in rows],
    )


async def get(tx: Transaction, organization_id: UUID, execution_id: UUID, owner: UUID | None) -> Execution:
    """One execution with everything. Raises NotFound alike for one that is missing and one that is somebody else's."""
    row = await tx.fetchrow(
        f"SELECT {_WHOLE} FROM {JOINED} AND e.id = $2 AND ($3::uuid IS NULL OR e.user_id = $3)",
        organization_id,
        execution_id,
        owner,
    )
    if row is None:
        raise NotFound("Execution", execution_name(execution_id))
    return _execution(row)


async def get_many(tx: Transaction, organization_id: UUID, execution_ids: Sequence[UUID]) -> list[Execution]:
    """Those of the executions that there are, with everything."""
    sql = f"SELECT {_WHOLE} FROM {JOINED} AND e.id = ANY($2::uuid[])"
    return [_execution(row) for row in await tx.fetch(sql, organization_id, list(execution_ids))]


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


@dataclass(frozen=True, slots=True)
class Deleted:
    """What is left of an execution that was replaced: the session that it ran in, and whether that is to be kept."""

    session_id: UUID | None
    keep_session: bool


async def delete(tx: Transaction, organization_id: UUID, execution_id: UUID) -> Deleted | None:
    """Remove an execution's row, not its stream; None: there was none."""
    row = await tx.fetchrow(
        """DELETE FROM executions WHERE organization_id = $1 AND id = $2
           RETURNING session_id, COALESCE(payload ->> 'keep_session' = 'true', false)""",
        organization_id,
        execution_id,
    )
    return None if row is None else Deleted(*row)


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
        f"""SELECT {_SHORT}, {clause.cursor_sql} FROM {JOINED} AND ($2::uuid IS NULL OR e.user_id = $2)
            AND {clause.where_sql} ORDER BY {clause.order_sql}""",
        organization_id,
        owner,
        *clause.args,
    )
    return clause.page(rows, _execution)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a worker reads of an execution before it begins."""

    payload: dict[str, Any]
    variables: dict[str, Any]
    template: bool
    task_id: str | None
    task_uid: UUID | None
    scheduled_for: datetime | None
    session_id: UUID | None
    checkpoint: dict[str, Any] | None
    secrets: dict[str, Any] = field(repr=False)


async def begin(tx: Transaction, organization_id: UUID, execution_id: UUID, lease_token: UUID) -> Stored | None:
    """What a worker needs, and nobody else gets its lease before the transaction's end; None: it has the lease no more.

    As `work.leases.hold`, in one round trip.
    """
    row = await tx.fetchrow(
        """SELECT e.payload, e.variables, e.template, e.task_id, e.task_uid, e.scheduled_for, e.session_id,
                  e.checkpoint, e.secrets
           FROM work_items i JOIN executions e ON e.organization_id = i.organization_id AND e.id = i.item_id
           WHERE i.organization_id = $1 AND i.item_id = $2 AND i.lease_token = $3 AND i.state = 'RUNNING'
           FOR SHARE OF i""",
        organization_id,
        execution_id,
        lease_token,
    )
    return None if row is None else Stored(*row)


async def set_rendered(
    tx: Transaction,
    organization_id: UUID,
    execution_id: UUID,
    payload: dict[str, Any],
    variables: dict[str, Any],
    secrets: Mapping[str, Any],
) -> None:
    """Write the payload filled in, and its secrets."""
    await tx.execute(
        """UPDATE executions SET payload = $3, variables = $4, secrets = $5, template = false
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        execution_id,
        payload,
        variables,
        dict(secrets),
    )


async def set_checkpoint(
    tx: Transaction, organization_id: UUID, execution_id: UUID, checkpoint: dict[str, Any]
) -> None:
    """Write what the next attempt goes on from."""
    sql = "UPDATE executions SET checkpoint = $3 WHERE organization_id = $1 AND id = $2"
    await tx.execute(sql, organization_id, execution_id, checkpoint)


async def set_session(tx: Transaction, organization_id: UUID, execution_id: UUID, session_id: UUID) -> None:
    """Write the session that an execution runs in."""
    sql = "UPDATE executions SET session_id = $3 WHERE organization_id = $1 AND id = $2"
    await tx.execute(sql, organization_id, execution_id, session_id)


async def unblock(tx: Transaction, organization_id: UUID, execution_ids: Sequence[UUID]) -> None:
    """Write that executions do not, or no longer, wait for the tasks that theirs depends on."""
    sql = "UPDATE executions SET blocked = false WHERE organization_id = $1 AND id = ANY($2::uuid[]) AND blocked"
    await tx.execute(sql, organization_id, list(execution_ids))


async def blocked_of(tx: Transaction, organization_id: UUID, *task_ids: str) -> list[UUID]:
    """The executions of tasks that wait for others, in their order."""
    sql = "SELECT id FROM executions WHERE organization_id = $1 AND task_id = ANY($2::text[]) AND blocked ORDER BY id"
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


async def open_of(tx: Transaction, organization_id: UUID, task_id: str, *, scheduled: bool = False) -> list[UUID]:
    """The executions of a task that have not ended (`scheduled`: that its schedule began), the oldest first."""
    rows = await tx.fetch(
        f"""SELECT e.id FROM {JOINED} AND e.task_id = $2 AND (NOT $3 OR e.trigger = 'SCHEDULE')
            AND i.state IN ('WAITING', 'QUEUED', 'RUNNING', 'SUSPENDED') ORDER BY e.created_at, e.id""",
        organization_id,
        task_id,
        scheduled,
    )
    return [row["id"] for row in rows]


async def last_begun(tx: Transaction, organization_id: UUID, task_id: str) -> datetime | None:
    """When the newest execution of a task was submitted; None when there is none."""
    at: datetime | None = await tx.fetchval(
        "SELECT max(created_at) FROM executions WHERE organization_id = $1 AND task_id = $2", organization_id, task_id
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


def _json(value: dict[str, Any]) -> str:
    return to_json(value).decode()


def _execution(row: Any) -> Execution:
    whole = "payload" in row.keys()  # noqa: SIM118 - a record is no mapping
    last_error, progress = row["last_error"], row["progress"] or {}
    return Execution(
        id=row["id"],
        user_id=row["user_id"],
        kind=row["kind"],
        state=ExecutionState(row["execution_state"]),
        trigger=Trigger(row["trigger"]),
        created_at=row["created_at"],
        task_id=row["task_id"],
        reason=row["reason"] or "",
        message=_message(row, last_error or {}),
        scheduled_for=row["scheduled_for"],
        payload=row["payload"] if whole else {},
        variables=row["variables"] if whole else {},
        priority=Priority(row["priority"]),
        attempts=row["attempt"],
        failed_attempts=_attempts(row["errors"]) if whole else (),
        progress=Progress(progress.get("fraction"), progress.get("message", ""), progress.get("counters", {})),
        result=(row["result"] or {}) if whole else {},
        session_id=row["session_id"],
        report_formats=tuple(ReportFormat(name) for name in row["report_formats"]),
        report_ids=tuple(row["report_ids"]) if whole else (),
        cancel_requested=row["cancel_requested"],
        labels=row["labels"],
        run_at=row["run_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        last_sequence=row["last_sequence"] if whole else 0,
    )


def _message(row: Any, last_error: Mapping[str, Any]) -> str:
    """Why it stands as it does, for people."""
    match row["execution_state"]:
        case ExecutionState.BLOCKED:
            return row["waits_for"] or ""
        case ExecutionState.FAILED:
            return str(last_error.get("error", ""))
        case ExecutionState.CANCELLED if row["reason"] == DEPENDENCY_FAILED:
            return str(last_error.get("error", ""))
        case _:
            return ""


def _attempts(errors: list[dict[str, Any]]) -> tuple[Attempt, ...]:
    return tuple(
        Attempt(
            number=error["attempt"],
            error=error["error"],
            reason=error.get("reason") or "",
            ended_at=datetime.fromisoformat(error["at"]) if error.get("at") else None,
        )
        for error in errors
        if error.get("reason") != DEPENDENCY_FAILED
    )
