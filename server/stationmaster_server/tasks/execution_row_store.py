"""Executions as they are read: the columns of their rows and of their work items, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stationmaster_server.tasks.dependency_store import WAITS_FOR
from stationmaster_server.tasks.model import (
    DEPENDENCY_FAILED,
    Attempt,
    Execution,
    ExecutionState,
    Priority,
    Progress,
    RanIn,
    ReportFormat,
    Trigger,
)

# How an execution stands follows from its work item.
STATE = """(CASE i.state WHEN 'WAITING' THEN CASE WHEN e.blocked THEN 'BLOCKED' ELSE 'QUEUED' END
     WHEN 'QUEUED' THEN CASE WHEN e.blocked THEN 'BLOCKED' ELSE 'QUEUED' END
     WHEN 'SUSPENDED' THEN 'QUEUED' WHEN 'DEAD' THEN 'FAILED' ELSE i.state END)"""
SHORT = f"""
    e.id, e.user_id, e.task_id, e.task_uid, e.kind, e.trigger, e.scheduled_for, e.labels, e.report_formats,
    e.session_id, e.turn_id, e.keep_session, e.created_at, {STATE} AS execution_state, i.reason, i.priority, i.attempt,
    i.progress, i.cancel_requested, i.run_at, i.started_at, i.finished_at, i.errors -> -1 AS last_error,
    {WAITS_FOR} AS waits_for"""
WHOLE = f"""{SHORT}, e.payload, e.variables, i.result, i.errors,
    (SELECT last_sequence FROM streams s WHERE s.organization_id = e.organization_id AND s.stream_id = e.id)
        AS last_sequence,
    ARRAY(SELECT r.id FROM reports r WHERE r.organization_id = e.organization_id AND r.execution_id = e.id
          ORDER BY r.created_at) AS report_ids"""
JOINED = """executions e JOIN work_items i ON i.organization_id = e.organization_id AND i.item_id = e.id
    WHERE e.organization_id = $1"""


def to_execution(row: Any) -> Execution:
    """The execution of a row with `SHORT` or `WHOLE`."""
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
        task_uid=row["task_uid"],
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
        ran_in=RanIn(row["session_id"], row["turn_id"], row["keep_session"]),
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
