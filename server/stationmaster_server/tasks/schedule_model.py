"""Schedules: when a task is due, and what becomes of each due time. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class Overlap(StrEnum):
    """What becomes of a due time while an execution that the schedule started has not ended."""

    SKIP = "SKIP"  # it is skipped
    BUFFER_ONE = "BUFFER_ONE"  # one waits for the end of the one that runs; more are skipped
    ALLOW_ALL = "ALLOW_ALL"  # they run side by side, up to a bound
    CANCEL_OTHER = "CANCEL_OTHER"  # the one that runs is cancelled, and the new one starts once it has stopped


class SkipReason(StrEnum):
    """Why a due time did not fire."""

    MISSED = "MISSED"  # no server fired it within the catch-up window
    OVERLAP = "OVERLAP"  # another execution had not ended; under ALLOW_ALL as many as may be
    PAUSED = "PAUSED"  # it came while the schedule was paused
    RESCHEDULED = "RESCHEDULED"  # another schedule took the place of its own before it fired


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a task is due: by `cron` in `time_zone`, or at every multiple of `every` since `start` (else since 1970).

    `start` and `end` are the first and the last instant that may be due. `catch_up`: how late a due time still fires.
    `jitter`: each fires up to so much later, by a hash of it and its task, and before the next due time.
    """

    cron: str = ""
    every: timedelta | None = None
    time_zone: str = "UTC"
    overlap: Overlap = Overlap.SKIP
    catch_up: timedelta = timedelta(hours=1)
    jitter: timedelta = timedelta(0)
    pause_on_failure: bool = False
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True, order=True)
class DueTime:
    """An instant that a schedule names, and when it fires: later by the jitter. Both in UTC."""

    due_at: datetime
    fires_at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen now: which due times fire, how many are skipped for which reason, and what comes next.

    Every due time up to `settled_until` is either fired or counted. `next` may lie in the past when there was more to
    fire than is fired at once; None: nothing is due any more.
    """

    fire: tuple[DueTime, ...]
    skipped: Mapping[SkipReason, int]
    settled_until: datetime
    next: DueTime | None
