"""The bounds of a report: whatever an execution brought, what is written about it is of a size that people read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from stationmaster_server.tasks.reports.model import Attempt, Entry, Progress, Report, Section, Table, ToolCall

NAME, ERROR, CALL, TEXT = 300, 4_000, 4_000, 20_000
"""Characters of a name, of an error, of arguments or a result, and of a message or section."""
TOTAL = 250_000
"""Characters of all texts together."""
ENTRIES, CALLS, SPANS, ATTEMPTS, MODELS, SECTIONS, MESSAGES, NOTES = 400, 50, 2_000, 50, 50, 20, 200, 50
"""At most so many of each; of messages, calls, attempts and rows the first and the last are kept."""
ROWS, COLUMNS, HEAD, CELL = 500, 12, 60, 500

T = TypeVar("T")

# What cannot be shown, and what would let a text reorder the words around it.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff]")
_MARKS, _HIGHEST, _JOINER = frozenset({"Mn", "Me", "Cf"}), 12, "\u200d"
_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")


def clean(text: str) -> str:
    """The text without control characters, halves of characters, orders of direction and towers of accents.

    Line ends are `\\n`.
    """
    shown = _UNWANTED.sub("\N{REPLACEMENT CHARACTER}", _BREAKS.sub("\n", text))
    return shown if shown.isascii() else "".join(_lowered(shown))


def _lowered(text: str) -> Iterator[str]:
    """The characters but those that would be one too many in a tower of accents or a chain of emoji."""
    height, joined = 0, False
    for character in text:
        mark = unicodedata.category(character) in _MARKS
        height = height + 1 if mark or joined else 0
        kept = not mark or height <= _HIGHEST
        joined = kept and character == _JOINER
        if kept:
            yield character


def line(text: str, limit: int = NAME) -> str:
    """The text as one line of at most so many characters."""
    shown = " ".join(clean(text[: 4 * limit]).split())
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def cut(text: str, limit: int) -> str:
    """The text, or its beginning and a note of how much is left out."""
    if len(text) <= limit:
        return clean(text)
    kept = clean(text[:limit]).rstrip()
    return f"{kept} … [{len(text) - limit:,} more characters are left out]"


def bounded(report: Report) -> Report:
    """The report within the bounds; what is left out is said in its place or in the notes."""
    return _Bounding(report).result()


class _Bounding:
    """One report on its way to be bounded: `_left` characters remain for texts, in the order in which they are read."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._left = TOTAL
        self._notes: list[str] = [cut(note, ERROR) for note in report.notes[:NOTES]]

    def result(self) -> Report:
        report = self._report
        attempts = tuple(self._attempt(attempt) for attempt in self._some(report.attempts, ATTEMPTS, "attempts"))
        reason = self._text(report.reason, ERROR)
        sections = tuple(self._section(section) for section in self._first(report.sections, SECTIONS, "sections"))
        conversation = tuple(self._entry(entry) for entry in self._some(report.conversation, ENTRIES, "messages"))
        spans = self._first(report.spans, SPANS, "spans of the timings")
        models = self._first(report.totals.models, MODELS, "models")
        return replace(
            report,
            title=line(report.title) or "Untitled",
            execution=line(report.execution),
            kind=line(report.kind) or "task",
            state=line(report.state) or "unknown",
            owner=line(report.owner),
            owner_name=line(report.owner_name),
            task=None if report.task is None else line(report.task),
            reason=reason,
            attempts=attempts,
            spans=tuple(replace(span, name=line(span.name)) for span in spans),
            conversation=conversation,
            totals=replace(report.totals, models=tuple(replace(usage, model=line(usage.model)) for usage in models)),
            progress=self._progress(report.progress),
            sections=sections,
            notes=tuple(self._notes),
        )

    def _text(self, text: str, limit: int) -> str:
        shown = cut(text, max(0, min(limit, self._left)))
        self._left -= min(len(text), limit)
        return shown

    def _first(self, items: Sequence[T], limit: int, what: str) -> Sequence[T]:
        if len(items) > limit:
            self._notes.append(f"{len(items) - limit:,} more {what} are left out of this report.")
        return items[:limit]

    def _some(self, items: Sequence[T], limit: int, what: str) -> Sequence[T]:
        """The first and the last of them: how it began and how it ended."""
        if len(items) <= limit:
            return items
        half = limit // 2
        left = len(items) - limit
        self._notes.append(f"{left:,} {what} are left out of this report, between the first {half} and the last.")
        return (*items[:half], *items[len(items) - (limit - half) :])

    def _attempt(self, attempt: Attempt) -> Attempt:
        return replace(attempt, state=line(attempt.state), error=self._text(attempt.error, ERROR))

    def _entry(self, entry: Entry) -> Entry:
        return replace(
            entry,
            role=line(entry.role) or "message",
            text=self._text(entry.text, TEXT),
            model=line(entry.model),
            tool_calls=tuple(self._call(call) for call in self._some(entry.tool_calls, CALLS, "tool calls")),
            note=line(entry.note),
        )

    def _call(self, call: ToolCall) -> ToolCall:
        arguments, result = self._text(call.arguments, CALL), self._text(call.result, CALL)
        return replace(call, name=line(call.name) or "tool", arguments=arguments, result=result, state=line(call.state))

    def _progress(self, progress: Progress) -> Progress:
        counters = self._first(list(progress.counters.items()), MESSAGES, "counters")
        messages = self._some(progress.messages, MESSAGES, "messages of progress")
        return replace(
            progress,
            counters={line(name): count for name, count in counters},
            messages=tuple(replace(message, text=line(message.text, CELL)) for message in messages),
        )

    def _section(self, section: Section) -> Section:
        title, text = line(section.title) or "Untitled", self._text(section.text, TEXT)
        return replace(section, title=title, text=text, table=section.table and self._table(section.table, title))

    def _table(self, table: Table, title: str) -> Table:
        columns = self._first(table.columns, COLUMNS, f"columns of “{title}”")
        rows = self._some(table.rows, ROWS, f"rows of “{title}”")
        return replace(
            table,
            columns=tuple(line(column, HEAD) for column in columns),
            rows=tuple(tuple(self._cell(row, at) for at in range(len(columns))) for row in rows),
        )

    def _cell(self, row: Sequence[str], at: int) -> str:
        if at >= len(row):
            return ""
        shown = line(row[at], max(1, min(CELL, self._left)))
        self._left -= len(shown)
        return shown
