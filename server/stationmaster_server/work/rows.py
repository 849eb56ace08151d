"""Rows of work_items to and from the model."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from stationmaster_server.work.model import DEFAULT_RETRY, RetryPolicy, State, WorkItem

if TYPE_CHECKING:
    from asyncpg import Record

# In the order of WorkItem's fields.
COLUMNS = """
    i.organization_id, i.user_id, i.item_id, i.kind, i.subject_id, i.state, i.reason, i.priority, i.paused, i.payload,
    i.concurrency_key, i.rate_key, i.retry, i.attempt, i.run_at, i.created_at, i.started_at, i.finished_at,
    i.cancel_requested, i.progress, i.result, i.errors, i.attempt_timeout, i.lease_token
"""
# The same of a row that has just been claimed: what is empty then, or of no use to a handler, need not travel.
CLAIMED_COLUMNS = """
    i.organization_id, i.user_id, i.item_id, i.kind, i.subject_id, i.state, i.reason, i.priority, i.paused, i.payload,
    i.concurrency_key, i.rate_key, i.retry, i.attempt, i.run_at, i.created_at, i.started_at, i.finished_at,
    i.cancel_requested, NULL::json, i.result, NULLIF(i.errors, '[]'), i.attempt_timeout, i.lease_token
"""
_STATE, _RETRY, _ERRORS = 5, 12, 21
_STATES = {state.value: state for state in State}


def to_item(row: Record) -> WorkItem:
    """The item in a row that begins with COLUMNS."""
    values: list[Any] = list(row)
    values[_STATE] = _STATES[values[_STATE]]
    values[_RETRY] = DEFAULT_RETRY if values[_RETRY] is None else _to_policy(values[_RETRY])
    if values[_ERRORS] is None:
        values[_ERRORS] = []
    return WorkItem(*values[:24])


def from_policy(policy: RetryPolicy) -> dict[str, Any] | None:
    """A policy as it is stored; the default is stored as NULL."""
    if policy == DEFAULT_RETRY:
        return None
    return {
        "attempts": policy.attempts,
        "initial_seconds": policy.initial.total_seconds(),
        "factor": policy.factor,
        "cap_seconds": policy.cap.total_seconds(),
        "jitter": policy.jitter,
        "non_retryable": sorted(policy.non_retryable),
    }


def _to_policy(stored: dict[str, Any]) -> RetryPolicy:
    return RetryPolicy(
        attempts=stored["attempts"],
        initial=timedelta(seconds=stored["initial_seconds"]),
        factor=stored["factor"],
        cap=timedelta(seconds=stored["cap_seconds"]),
        jitter=stored["jitter"],
        non_retryable=frozenset(stored["non_retryable"]),
    )
