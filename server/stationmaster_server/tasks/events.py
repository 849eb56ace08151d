"""One builder for each kind of event of an execution's stream. `convert_events.py` makes messages of them.

A body is JSON: the fields of the kind's message in event.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from stationmaster_server.events.model import NewEvent
from stationmaster_server.tasks.model import ExecutionState, Progress
from stationmaster_server.work.retry import Decision

STATE_CHANGED = "execution_state_changed"
HANDED_BACK = "HANDED_BACK"
"""The reason of an execution that is queued again and has not failed."""
MAX_LOG_CHARACTERS = 8192
LEVELS = frozenset({"debug", "info", "warning", "error"})


def state_changed(
    state: ExecutionState, attempt: int, reason: str = "", message: str = "", *, retry_at: datetime | None = None
) -> NewEvent:
    """The execution changed its state."""
    body: dict[str, Any] = {"state": state.value, "attempt": attempt}
    if reason:
        body["reason"] = reason
    if message:
        body["message"] = message[:MAX_LOG_CHARACTERS]
    if retry_at is not None:
        body["retry_at"] = retry_at.isoformat()
    return NewEvent(STATE_CHANGED, body)


def queued_again(attempt: int, decision: Decision) -> NewEvent:
    """The attempt has failed and is repeated, or was handed back and goes on."""
    if decision.error is None:
        return state_changed(ExecutionState.QUEUED, attempt, HANDED_BACK, retry_at=decision.run_at)
    at = datetime.now(UTC) + timedelta(seconds=decision.delay_seconds)
    reason, message = decision.error["reason"], decision.error["error"]
    return state_changed(ExecutionState.QUEUED, attempt, reason, message, retry_at=at)


def progress(how_far: Progress) -> NewEvent:
    """The execution tells how far it is."""
    return NewEvent("execution_progress", progress_to_json(how_far))


def log(text: str, level: str) -> NewEvent:
    """The execution says something."""
    return NewEvent("execution_log", {"level": level, "text": text[:MAX_LOG_CHARACTERS]})


def progress_to_json(how_far: Progress) -> dict[str, Any]:
    """Progress as it is stored in the work item and in events."""
    body: dict[str, Any] = {"message": how_far.message, "counters": dict(how_far.counters)}
    if how_far.fraction is not None:
        body["fraction"] = how_far.fraction
    return body


def message_added(body: Mapping[str, Any], session_id: str) -> NewEvent:
    """A message of the session that the execution runs in, as that session's stream has it."""
    return NewEvent("message_added", {**body, "session": session_id})
