"""Tasks, their dependencies and their executions: what they are and how they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason
from stationmaster_server.storage.model import ReportFormat
from stationmaster_server.tasks.schedule_model import Schedule
from stationmaster_server.templating.model import Variable, VariableType
from stationmaster_server.work.model import (
    DEFAULT_RETRY,
    NO_TIMEOUTS,
    OnConflict,
    Priority,
    RateLimit,
    RetryPolicy,
    Strategy,
    Timeouts,
)

__all__ = [
    "OnConflict",
    "Priority",
    "RateLimit",
    "ReportFormat",
    "RetryPolicy",
    "Schedule",
    "Strategy",
    "Timeouts",
    "Variable",
    "VariableType",
]

MAX_DEPTH = 50
"""Of dependencies."""
DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
"""The reason of an execution that was cancelled because a task that its task depends on had failed."""


class TaskState(StrEnum):
    """How a task stands."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"


class ExecutionState(StrEnum):
    """How an execution stands; it follows from its work item."""

    BLOCKED = "BLOCKED"  # waits for the tasks that its task depends on
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


FINAL = frozenset({ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.CANCELLED})


class Trigger(StrEnum):
    """What began an execution."""

    MANUAL = "MANUAL"
    AD_HOC = "AD_HOC"
    SCHEDULE = "SCHEDULE"
    DEPENDENCY = "DEPENDENCY"
    BACKFILL = "BACKFILL"


class DependencyMode(StrEnum):
    """What the dependencies of a task do."""

    START = "START"  # start it once all have succeeded since it was last begun
    GATE = "GATE"  # only hold back executions begun otherwise


class FailurePolicy(StrEnum):
    """What becomes of an execution when a task that its task depends on failed or was cancelled."""

    BLOCK = "BLOCK"
    SKIP = "SKIP"
    RUN_ANYWAY = "RUN_ANYWAY"


class DependencyState(StrEnum):
    """How a dependency stands: by the newest execution of the task depended on."""

    SATISFIED = "SATISFIED"
    PENDING = "PENDING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many executions of one key run at once. `key` "": the task itself."""

    key: str = ""
    max_running: int = 1
    strategy: Strategy = Strategy.GROUP_ROUND_ROBIN


@dataclass(frozen=True, slots=True)
class Options:
    """How executions are run. `priority` None: NORMAL."""

    priority: Priority | None = None
    retry: RetryPolicy = DEFAULT_RETRY
    timeouts: Timeouts = NO_TIMEOUTS
    concurrency: Concurrency | None = None
    rate: RateLimit | None = None
    report_formats: tuple[ReportFormat, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A definition of work. `skipped`: how often the schedule was due in vain, by reason.

    `settled_until`: every time up to then that the schedule was due is either fired or counted.
    """

    task_id: str
    kind: str
    uid: UUID
    user_id: UUID
    payload: Mapping[str, Any] = field(default_factory=dict)
    variables: tuple[Variable, ...] = ()
    schedule: Schedule | None = None
    options: Options = Options()
    dependency_mode: DependencyMode = DependencyMode.START
    display_name: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    state: TaskState = TaskState.ACTIVE
    state_reason: str = ""
    settled_until: datetime | None = None
    next_fire_at: datetime | None = None
    last_fire_at: datetime | None = None
    fired: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    last_execution_id: UUID | None = None
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Those of the payload, which has masks in their place, by JSON pointer."""
    etag: str = ""
    text_etag: str = ""
    """The etag with which what it is found by changed last."""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def needs(self) -> list[str]:
        """The variables that somebody has to give: nothing can begin it by itself."""
        return sorted(one.name for one in self.variables if one.required and not one.has_default)


@dataclass(frozen=True, slots=True)
class Dependency:
    """`task_id` waits for `depends_on`; `depth` steps away from the task that was asked about."""

    task_id: str
    depends_on: str
    on_failure: FailurePolicy
    depth: int
    state: DependencyState
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Spec:
    """What is to be executed, filled in. `run_at` None: now."""

    kind: str
    payload: Mapping[str, Any]
    options: Options = Options()
    run_at: datetime | None = None
    idempotency_key: str = ""
    idempotency_ttl_seconds: float = 86_400
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that failed."""

    number: int
    error: str
    reason: str
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an execution is; `fraction` from 0 to 1, None when it cannot tell."""

    fraction: float | None = None
    message: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RanIn:
    """The session that an execution runs in, the turn that it waits for there, and whether the session outlives it."""

    session_id: UUID | None = None
    turn_id: UUID | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a task, or of work without one (`task_id` None)."""

    id: UUID
    user_id: UUID
    kind: str
    state: ExecutionState
    trigger: Trigger
    created_at: datetime
    task_id: str | None = None
    task_uid: UUID | None = None
    reason: str = ""
    message: str = ""
    scheduled_for: datetime | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    attempts: int = 0
    failed_attempts: tuple[Attempt, ...] = ()
    progress: Progress = Progress()
    result: Mapping[str, Any] = field(default_factory=dict)
    ran_in: RanIn = RanIn()
    report_formats: tuple[ReportFormat, ...] = ()
    report_ids: tuple[UUID, ...] = ()
    cancel_requested: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    run_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    last_sequence: int = 0
    existing: bool = False
    """Of an answer: it was there already when it was submitted."""

    @property
    def session_id(self) -> UUID | None:
        """The session that it runs in."""
        return self.ran_in.session_id


@dataclass(frozen=True, slots=True)
class KindStats:
    """How many executions of a kind stand how; the last three: in the last hour."""

    kind: str
    blocked: int
    queued: int
    running: int
    failed: int
    oldest_queued_at: datetime | None
    succeeded_lately: int
    failed_lately: int
    cancelled_lately: int


def task_name(task_id: str) -> str:
    """`tasks/{task}`."""
    return f"tasks/{task_id}"


def execution_name(execution_id: UUID) -> str:
    """`executions/{execution}`."""
    return f"executions/{execution_id}"


def work_kind(kind: str) -> str:
    """The kind of the work items of a kind of task."""
    return f"task.{kind}"


def illegal_state(name: str, state: TaskState | ExecutionState, wanted: str, advice: str) -> FailedPrecondition:
    """The refusal of a change of state."""
    return FailedPrecondition(
        Reason.ILLEGAL_TRANSITION,
        f"{name} is {state} already" if state == wanted else f"{name} is {state} and cannot become {wanted}",
        PreconditionViolation("TASK_STATE", name, advice),
    )
