"""What can be exported, and as what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class What(StrEnum):
    """What can be exported."""

    SESSIONS = "sessions"
    MESSAGES = "messages"
    AUDIT = "audit"
    TASKS = "tasks"
    EXECUTIONS = "executions"


class Format(StrEnum):
    """Of the files; each value is the ending of their names."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class Type(StrEnum):
    """Of a column. JSON is nested in JSON lines, and a text elsewhere."""

    TEXT = "TEXT"
    INTEGER = "INTEGER"
    BOOLEAN = "BOOLEAN"
    TIME = "TIME"
    JSON = "JSON"


Columns = dict[str, Type]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: those that match, made from `since` to before `until`, at most `limit`."""

    filter_text: str
    since: datetime | None
    until: datetime
    limit: int


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that is there. `complete`: there were no more rows than the limit."""

    path: str
    what: What
    rows: int
    size_bytes: int
    sha256: str
    complete: bool
