"""Results for people and models to read: tables of bounded size, and texts cut with a mark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_TEXT = 48 * 1024
"""Characters of a text result at most."""
_WIDEST = 80
_MARK = "…"


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """The text, cut with a mark that says so."""
    return text if len(text) <= limit else f"{text[:limit]}\n{_MARK} (cut: {len(text) - limit} more characters)"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of aligned columns, each cell on one line."""
    lines = [[_cell(value) for value in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [" | ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    shown.insert(1, "-+-".join("-" * width for width in widths))
    return cut("\n".join(shown))


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    line = text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")
    return line if len(line) <= _WIDEST else line[: _WIDEST - 1] + _MARK
