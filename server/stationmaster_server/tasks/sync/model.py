"""What is kept in step with tasks, and how far. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

VECTORS = "task-vector-sync"
"""The service that keeps the vectors of tasks, under whose id the texts stand that encoders refused."""


class About(StrEnum):
    """What of a task changed."""

    TASK = "task"  # what it says, how it stands, or that there is one
    EDGE = "edge"  # what it depends on
    VECTOR = "vector"  # the vector of its text


class Key(NamedTuple):
    """A task."""

    organization_id: UUID
    task_id: str


class Position(NamedTuple):
    """A place in the order of changes: by the transaction that made them, then by their numbers."""

    transaction: int
    number: int


NOTHING = Key(UUID(int=0), "")
"""Before every task."""


class Cursor(NamedTuple):
    """Every change up to `position`, of the source as it was named then, is in the target: of tasks up to `filling`."""

    source: str
    position: Position
    filling: Key | None = None
    """The last task that is there of one that is being filled from nothing; None: all are."""

    def __str__(self) -> str:
        return f"{self.position.transaction}:{self.position.number}"


@dataclass(frozen=True, slots=True)
class Text:
    """What a task says and how it stands. `body`: all that it is found by."""

    kind: str
    display_name: str
    state: str
    body: str
    etag: str
    text_etag: str
    """The etag with which the body changed last."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vector of a task's text, as of `etag`."""

    etag: str
    encoder: str
    values: bytes
    """Floats of four bytes, the least significant first."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task as it is now: what of it was asked for, and is there."""

    key: Key
    text: Text | None = None
    edges: tuple[tuple[str, str], ...] = ()
    """What it depends on, with what happens when that fails; in order."""
    vector: Embedded | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a target is. `waiting` changes are to come (10,000: or more); the oldest waits for `lag_seconds`."""

    place: str
    cursor: str
    waiting: int
    lag_seconds: float
    skipped: int
    seen_at: datetime
