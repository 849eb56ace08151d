"""What a report tells: frozen, made of plain values, and so fit to be sent to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class SpanKind(StrEnum):
    """What took time."""

    QUEUED = "QUEUED"
    ATTEMPT = "ATTEMPT"
    MODEL = "MODEL"
    TOOL = "TOOL"


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time; one without an end lasted as long as the execution."""

    kind: SpanKind
    name: str
    started_at: datetime
    ended_at: datetime | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try; `error` is empty when it succeeded."""

    number: int
    started_at: datetime | None = None
    finished_at: datetime | None = None
    state: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model made; arguments and result as text, mostly JSON."""

    name: str
    arguments: str = ""
    result: str = ""
    state: str = ""
    duration: timedelta | None = None

    @property
    def failed(self) -> bool:
        """Whether it brought no result."""
        return self.state.upper() in {"FAILED", "DENIED", "ERROR", "CANCELLED", "INTERRUPTED"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A message of the conversation; `text` is Markdown, `note` says what befell it (`interrupted`)."""

    role: str
    text: str
    created_at: datetime | None = None
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    latency: timedelta | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What one model was used for."""

    model: str
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums, over everything, also over what a report leaves out."""

    messages: int = 0
    tool_calls: int = 0
    models: tuple[ModelUsage, ...] = ()

    @property
    def input_tokens(self) -> int:
        """Of all models."""
        return sum(usage.input_tokens for usage in self.models)

    @property
    def output_tokens(self) -> int:
        """Of all models."""
        return sum(usage.output_tokens for usage in self.models)

    @property
    def cost_micros(self) -> int:
        """Of all models, in millionths of a US dollar."""
        return sum(usage.cost_micros for usage in self.models)


@dataclass(frozen=True, slots=True)
class ProgressMessage:
    """What an execution said while it ran."""

    at: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it came: `fraction` from 0 to 1, where it is known."""

    fraction: float | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    messages: tuple[ProgressMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table of plain text; the columns of `numeric` (by their index) are set to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Section:
    """What only one kind of task tells, such as the pages that were crawled: Markdown, a table, or both."""

    title: str
    text: str = ""
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One execution, told to people. Names are resource names (`tasks/…`, `executions/…`, `users/…`)."""

    title: str
    execution: str
    kind: str
    state: str
    owner: str
    created_at: datetime
    owner_name: str = ""
    task: str | None = None
    reason: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: tuple[Attempt, ...] = ()
    spans: tuple[Span, ...] = ()
    conversation: tuple[Entry, ...] = ()
    totals: Totals = Totals()
    progress: Progress = Progress()
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether it ended as it should."""
        return self.state == "SUCCEEDED"

    @property
    def failed(self) -> bool:
        """Whether it ended, and not as it should."""
        return self.finished_at is not None and not self.succeeded
