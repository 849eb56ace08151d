"""The rows of a query: read from text, and never more than there is room for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any

MAX_BYTES = 1024 * 1024
MAX_CELL = 8 * 1024  # characters
INTEGERS = frozenset({"int2", "int4", "int8", "oid"})
FLOATS = frozenset({"float4", "float8"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result and its PostgreSQL type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Rows:
    """A result. `truncated` says what was left out, if anything was."""

    columns: tuple[Column, ...]
    rows: list[list[Any]]
    truncated: str = ""
    cut_cells: int = 0


def cell_limit(columns: int) -> int:
    """How many characters a value may have, so that a row of so many columns has room."""
    return min(MAX_CELL, MAX_BYTES // columns)


class Taken:
    """Rows, until there are enough."""

    def __init__(self, columns: tuple[Column, ...], max_rows: int) -> None:
        self._columns = columns
        self._max_rows = max_rows
        self._cell = cell_limit(len(columns))
        self._rows: list[list[Any]] = []
        self._bytes = 0
        self._cut_cells = 0
        self._truncated = ""

    @property
    def wants_more(self) -> bool:
        """Whether there is room."""
        return not self._truncated

    def add(self, records: Iterable[Iterable[str | None]]) -> None:
        """Take rows of text, as many as there is room for."""
        for record in records:
            size = sum(len(value.encode()) for value in record if value is not None)
            if len(self._rows) == self._max_rows:
                self._truncated = f"only the first {self._max_rows} rows"
            elif self._bytes + size > MAX_BYTES:
                self._truncated = f"only the first {len(self._rows)} rows: more than {MAX_BYTES} bytes"
            if self._truncated:
                return
            self._bytes += size
            self._rows.append([self._value(value, column) for value, column in zip(record, self._columns, strict=True)])

    def _value(self, text: str | None, column: Column) -> Any:
        if text is None:
            return None
        if len(text) > self._cell:
            self._cut_cells += 1
            return text[: self._cell] + "…"
        if column.type in INTEGERS:
            return int(text)
        if column.type in FLOATS and isfinite(float(text)):
            return float(text)
        return text == "true" if column.type == "bool" else text

    def result(self) -> Rows:
        """What was taken."""
        return Rows(self._columns, self._rows, self._truncated, self._cut_cells)
