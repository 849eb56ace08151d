"""Too much of a quota: which one, of whom, and when there is more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from stationmaster_server.errors import QuotaViolation, Reason, ResourceExhausted
from stationmaster_server.identity.model import Amounts, AuditEntry, Caller, Category, Outcome, Quota
from stationmaster_server.identity.quota_store import Used

SOON = timedelta(seconds=5)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of counted quota: its limit, and how much of it some amounts are."""

    name: str
    limit: Callable[[Quota], int | None]
    of: Callable[[Amounts], int]
    unit: int = 1
    """How many make one that people are told of."""
    suffix: str = ""

    def told(self, value: int) -> int:
        """A value in the unit that people are told, rounded up."""
        return -(-value // self.unit)


@dataclass(frozen=True, slots=True)
class Excess:
    """What was too much, in the unit that people are told."""

    name: str
    limit: int
    used: int
    wanted: int
    retry_after: timedelta
    suffix: str = ""


class QuotaExceeded(ResourceExhausted):
    """A refusal, with what the audit trail is to be told of it."""

    def __init__(
        self, message: str, violation: QuotaViolation, retry_after: timedelta, caller: Caller, entry: AuditEntry
    ):
        super().__init__(Reason.QUOTA_EXCEEDED, message, violation, retry_after=retry_after)
        self.caller = caller
        self.entry = entry
        self.quota = f"{entry.resource} {entry.details['quota']}"
        self.limit: int = entry.details["limit"]
        self.would_be_used: int = entry.details["used"] + entry.details["wanted"]


def _microseconds(time: timedelta | None) -> int | None:
    return None if time is None else time // _MICROSECOND


TOKENS = Kind("max_tokens_per_day", lambda quota: quota.max_tokens_per_day, lambda amounts: amounts.tokens)
COST = Kind("max_cost_micros_per_day", lambda quota: quota.max_cost_micros_per_day, lambda amounts: amounts.cost_micros)
TOOL_CALLS = Kind("max_tool_calls_per_day", lambda quota: quota.max_tool_calls_per_day, lambda each: each.tool_calls)
RUNNING_TIME = Kind(
    "max_running_time_per_day",
    lambda quota: _microseconds(quota.max_running_time_per_day),
    lambda amounts: amounts.running_time // _MICROSECOND,
    1_000_000,
    " s",
)
DAILY = (TOKENS, COST, TOOL_CALLS, RUNNING_TIME)
"""What is counted by the day."""
_ADVICE = {
    "max_concurrent_sessions": "; terminate a session (TerminateSession, or: stationmaster sessions terminate)",
    "max_storage_bytes": "; delete files (DeleteFile, or: stationmaster files rm)",
}


def first_excess(quota: Quota, used: Used, wanted: Amounts) -> Excess | None:
    """The first limit of the day that so much more would pass."""
    for kind in DAILY:
        limit, more, now = kind.limit(quota), kind.of(wanted), kind.of(used.today)
        if limit is not None and more and now + more > limit:
            return excess(kind, limit, now, more)
    return None


def excess(kind: Kind, limit: int, used: int, wanted: int) -> Excess:
    """What was too much of a day."""
    told = kind.told
    return Excess(kind.name, told(limit), told(used), told(wanted), _until_midnight(), kind.suffix)


def exceeded(caller: Caller, quota: Quota, organization_id: UUID, excess: Excess) -> QuotaExceeded:
    """The refusal."""
    subject = subject_name(quota.subject_id, organization_id)
    unit = excess.suffix
    description = (
        f"{excess.name} is {excess.limit}{unit}; {excess.used}{unit} are used"
        f" and {excess.wanted}{unit} more were asked for"
    )
    details = {"quota": excess.name, "limit": excess.limit, "used": excess.used, "wanted": excess.wanted}
    entry = AuditEntry(
        "quota.refuse", f"{subject}/quota", Outcome.DENIED, Category.SECURITY, Reason.QUOTA_EXCEEDED.value, details
    )
    advice = _ADVICE.get(excess.name, "")
    message = f"the quota of {subject} is used up: {description}{advice}"
    return QuotaExceeded(message, QuotaViolation(subject, description), excess.retry_after, caller, entry)


def subject_name(subject_id: UUID, organization_id: UUID) -> str:
    """The name of whom a quota is for."""
    return f"organizations/{subject_id}" if subject_id == organization_id else f"users/{subject_id}"


def _until_midnight() -> timedelta:
    now = datetime.now(UTC)
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - now
