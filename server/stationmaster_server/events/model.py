"""Events and what readers get. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be written; its body belongs to the log from then on.

    Consecutive events of one stream in one flush with equal `kind` and `merge_key` become one, whose `body["text"]`
    is theirs joined; what else the bodies say must then be equal.
    """

    kind: str
    body: dict[str, Any]
    merge_key: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A committed event. All watchers of a stream share the object: nobody may change its body."""

    stream_id: UUID
    sequence: int
    kind: str
    body: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """What a reader gets at once: the events after its cursor, in order, and the cursor to resume from.

    A keepalive has no events; its `last_sequence` is the newest that the stream is known to have.
    """

    events: Sequence[Event]
    last_sequence: int


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the log, read in one snapshot: every event that is stored after a cursor, up to `covered`.

    Sequences up to `covered` that are not among the events were compacted away: the log says so, so it is no gap.
    """

    events: list[Event]
    covered: int
    full: bool  # there may be more after it
