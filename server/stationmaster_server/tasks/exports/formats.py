"""Rows into bytes: JSON lines, CSV, Parquet. Everything here computes and blocks: it is called in a thread."""

from __future__ import annotations

import csv
import importlib
import io
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from pydantic_core import to_json

from stationmaster_server.tasks.exports.model import Columns, Format, Type

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_ROW_GROUP_BYTES = 8 * 1024 * 1024
"""Of texts that are held back until Parquet writes them as one group."""


class Sink(Protocol):
    """A file to write to."""

    def write(self, data: bytes, /) -> int:
        """Write bytes."""
        ...


class Writer(Protocol):
    """Writes a file from its beginning to its end."""

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write some rows."""
        ...

    def close(self) -> None:
        """Write what is left; the file itself stays open."""
        ...


class FormatUnavailable(Exception):
    """This server cannot write the format."""


def writer(file: Sink, file_format: Format, columns: Columns, *, formulas: bool = False) -> Writer:
    """The writer of a format. Raises FormatUnavailable.

    `formulas`: CSV has texts that spreadsheets take for formulas as they are; otherwise with a `'` before them.
    """
    match file_format:
        case Format.JSONL:
            return _Lines(file, columns)
        case Format.CSV:
            return _Csv(file, columns, formulas)
        case Format.PARQUET:
            return _Parquet(file, columns)


class _Lines:
    def __init__(self, file: Sink, columns: Columns) -> None:
        self._file = file
        self._columns = columns

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        self._file.write(b"".join(_json(row) + b"\n" for row in rows))

    def close(self) -> None:
        """Nothing is held back."""


class _Csv:
    def __init__(self, file: Sink, columns: Columns, formulas: bool) -> None:
        self._file = file
        self._columns = columns
        self._formulas = formulas
        self._put([list(columns)])

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        self._put([[self._cell(row[name], kind) for name, kind in self._columns.items()] for row in rows])

    def close(self) -> None:
        """Nothing is held back."""

    def _put(self, cells: Sequence[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(cells)
        self._file.write(text.getvalue().encode("utf-8", "replace"))

    def _cell(self, value: Any, kind: Type) -> str:
        if value is None:
            return ""
        match kind:
            case Type.TIME:
                return str(value.isoformat())
            case Type.BOOLEAN:
                return "true" if value else "false"
            case Type.INTEGER:
                return str(value)
            case _:
                text = _json(value).decode() if kind is Type.JSON else str(value)
                return f"'{text}" if text.startswith(_FORMULA) and not self._formulas else text


class _Parquet:
    def __init__(self, file: Sink, columns: Columns) -> None:
        try:
            self._arrow = importlib.import_module("pyarrow")
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise FormatUnavailable(
                "Parquet needs pyarrow on the server: pip install 'stationmaster[parquet]', or export jsonl or csv"
            ) from None
        arrow = self._arrow
        types = {
            Type.TEXT: arrow.string(),
            Type.JSON: arrow.string(),
            Type.INTEGER: arrow.int64(),
            Type.BOOLEAN: arrow.bool_(),
            Type.TIME: arrow.timestamp("us", tz="UTC"),
        }
        self._columns = columns
        self._schema = arrow.schema([arrow.field(name, types[kind]) for name, kind in columns.items()])
        self._writer = parquet.ParquetWriter(arrow.PythonFile(file, mode="w"), self._schema, compression="zstd")
        self._held: list[dict[str, Any]] = []
        self._held_bytes = 0

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            cells = {name: _plain(row[name], kind) for name, kind in self._columns.items()}
            self._held.append(cells)
            self._held_bytes += 100 + sum(len(cell) for cell in cells.values() if isinstance(cell, str))
        if self._held_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._arrow.Table.from_pylist(self._held, schema=self._schema))
        self._held, self._held_bytes = [], 0


def _plain(value: Any, kind: Type) -> str | int | bool | datetime | None:
    if value is None or kind in (Type.INTEGER, Type.BOOLEAN, Type.TIME):
        plain: int | bool | datetime | None = value
        return plain
    text = _json(value).decode() if kind is Type.JSON else str(value)
    return text.encode("utf-8", "replace").decode()


def _json(value: Any) -> bytes:
    try:
        return to_json(value)
    except ValueError:  # half a surrogate pair, which UTF-8 cannot carry, is kept as an escape
        return json.dumps(value, default=str, separators=(",", ":")).encode()
