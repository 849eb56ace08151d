"""What a kind of task is, and what it gets to do its work with. Plug-ins implement `Kind` and use `Job`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    PermissionDenied,
    Reason,
    StationmasterError,
)
from stationmaster_server.events.model import NewEvent
from stationmaster_server.tasks.model import Execution
from stationmaster_server.tasks.reports.model import Section


class Payload(BaseModel):
    """The base of payloads: what is unknown is refused, so that a slip of the pen is no silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


__all__ = [
    "Conversation",
    "Done",
    "Guarded",
    "Job",
    "Kind",
    "KindFailed",
    "Later",
    "LooksAhead",
    "Payload",
    "ReportsItself",
]

P_co = TypeVar("P_co", bound=BaseModel, covariant=True)
P_contra = TypeVar("P_contra", bound=BaseModel, contravariant=True)


class KindFailed(Exception):
    """The attempt failed. `retryable`: another one may do better; `retry_after` instead of the policy's delay."""

    def __init__(
        self, message: str, *, reason: str = "FAILED", retryable: bool = True, retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.message = str(message)
        self.reason = str(reason)[:100]
        self.retryable = retryable
        self.retry_after = retry_after


class Later(Exception):
    """Hand the execution back, to go on from its checkpoint after `delay`; it counts as no attempt."""

    def __init__(self, delay: timedelta) -> None:
        super().__init__(f"goes on in {delay}")
        self.delay = delay


@dataclass(frozen=True, slots=True)
class Done:
    """What an execution made: a JSON object of at most 1 MiB."""

    result: Mapping[str, Any] = field(default_factory=dict)


class Conversation(Protocol):
    """The session that an execution runs in, and the turn that it waits for there: both end with the execution.

    What is made under its `id` is made once, whatever dies. `open` and `begin` are called within the transaction that
    makes the session and begins the turn, so that none is made of which the execution does not know.
    """

    @property
    def id(self) -> UUID:
        """For the ids of requests; another one once it was left, be it by an end that a retry followed."""
        ...

    async def open(self, tx: Transaction, session_id: UUID, *, keep: bool) -> None:
        """The session is being made; `keep`: it is not terminated, only the turn ends. Raises LeaseLost."""
        ...

    async def begin(self, tx: Transaction, turn_id: UUID) -> None:
        """The turn is being begun. Raises LeaseLost."""
        ...

    async def leave(self, why: str) -> None:
        """Have done with the session: what comes next has one of its own. Raises LeaseLost."""
        ...


class Job(Protocol[P_co]):
    """One attempt at an execution, as its kind sees it.

    It may run again after a crash: `checkpoint` is what the attempt before left, and every write of this attempt is
    refused once another server has taken the execution over. When somebody cancels, the attempt's task is cancelled.

    What is said is written in the background. When that fails, the next call raises LeaseLost or Unavailable: let it
    pass. An attempt that goes on all the same fails at its end, for the stream lacks what it said.
    """

    @property
    def payload(self) -> P_co:
        """What is to be done, filled in and checked."""
        ...

    @property
    def execution_id(self) -> UUID:
        """The execution."""
        ...

    @property
    def task_id(self) -> str | None:
        """The task; None when there is none."""
        ...

    @property
    def attempt(self) -> int:
        """1 for the first."""
        ...

    @property
    def scheduled_for(self) -> datetime | None:
        """The time that the schedule was due at."""
        ...

    @property
    def caller(self) -> Caller:
        """The system, acting for the owner of the execution: for calls to services."""
        ...

    @property
    def checkpoint(self) -> Mapping[str, Any] | None:
        """What an earlier attempt left."""
        ...

    @property
    def conversation(self) -> Conversation:
        """The session that the execution runs in."""
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """Inside, the execution takes no slot of its server: for a kind that does nothing but wait for other work.

        How many may do so at once is for the kind to bound.
        """
        ...

    def progress(
        self, fraction: float | None = None, message: str = "", counters: Mapping[str, int] | None = None
    ) -> None:
        """Tell how far it is: `fraction` from 0 to 1, None when that is not known. As often as you like."""
        ...

    def log(self, text: str, level: str = "info") -> None:
        """Say something: `debug`, `info`, `warning` or `error`; at most 8 KiB.

        Of lines that come faster than they can be written some are left out, and a line tells how many: who says very
        much awaits `drain` now and then.
        """
        ...

    def add(self, event: NewEvent) -> None:
        """Put an event of another kind into the stream. None is left out: who adds many awaits `drain`."""
        ...

    async def drain(self) -> None:
        """Wait until all that was said is durable."""
        ...

    async def save(self, checkpoint: Mapping[str, Any]) -> None:
        """Leave a checkpoint, a JSON object of at most 1 MiB: durable when this returns, as all that was said before.

        Raises LeaseLost: another server has the execution; let it pass.
        """
        ...


class Kind(Protocol[P_contra]):
    """A kind of task. One object serves all executions of a server at once."""

    name: ClassVar[str]
    """`^[a-z][a-z0-9_-]{0,62}$`"""
    payload: ClassVar[type[BaseModel]]
    """What executions of the kind are given; a subclass of `Payload`."""

    async def run(self, job: Job[P_contra]) -> Done:
        """Do it. Raises KindFailed; any other error is a failed attempt that is repeated."""
        ...


@runtime_checkable
class Guarded(Protocol):
    """A kind that not every caller may use."""

    def admit(self, caller: Caller, payload: Mapping[str, Any]) -> None:
        """Raise PermissionDenied when the caller may not have this done.

        Asked when an execution is submitted and when a task is created, changed or executed; then texts of the payload
        may be templates, and secrets are masks. What may change until the execution runs is for `run` to look at again.
        """
        ...


@runtime_checkable
class SendsCredentials(Protocol):
    """A kind that has credentials of its owner sent somewhere."""

    def sends_credentials(self, payload: Mapping[str, Any]) -> bool:
        """Whether this payload does; its texts may be templates. Then a task is its owner's to change."""
        ...


@runtime_checkable
class LooksAhead(Protocol):
    """A kind whose payload names what may not be there."""

    async def faults(self, caller: Caller, payload: Mapping[str, Any]) -> Sequence[FieldViolation]:
        """What an execution would fail for, each by its path below the payload.

        Asked when a task is created or its payload changed; texts may be templates, which are let be, and masks.
        """
        ...


@runtime_checkable
class ReportsItself(Protocol):
    """A kind that knows better than a table of its result what a report should tell."""

    async def sections(self, caller: Caller, execution: Execution) -> Sequence[Section]:
        """What reports of an execution that has ended tell beside the conversation."""
        ...


NOT_RETRYABLE = frozenset(
    {Reason.INVALID_FIELD, Reason.INVALID_NAME, Reason.RESOURCE_NOT_FOUND, Reason.ADDRESS_REFUSED}
)
"""Errors of ours that no other attempt mends."""
NOT_ONLY_NOW = frozenset({Reason.MODEL_UNAVAILABLE, Reason.RUNTIME_UNAVAILABLE})
"""As preconditions: what the server or the organization does not have."""


def is_final(error: StationmasterError) -> bool:
    """Whether no other attempt mends what an error of ours tells."""
    lacking = isinstance(error, FailedPrecondition) and error.reason in NOT_ONLY_NOW
    return lacking or isinstance(error, InvalidArgument | PermissionDenied) or error.reason in NOT_RETRYABLE
