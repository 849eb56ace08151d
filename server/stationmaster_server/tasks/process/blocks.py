"""The blocks of a Markdown text: headings, fences and paragraphs, each with its place and the headings above it.

Plain text has paragraphs only. Lists, tables and quotes are paragraphs, whose lines stay
together where they can.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

# Each looks at a line without the white space at its end.
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?\Z")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)\Z")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)\Z")
_MOST_OF_A_HEADING = 300


class Shape(Enum):
    """What a block is."""

    HEADING = auto()
    FENCE = auto()
    PARAGRAPH = auto()


@dataclass(frozen=True, slots=True)
class Block:
    """`text[start:end]`; `headings` are those above it, of a heading with itself."""

    shape: Shape
    start: int
    end: int
    headings: tuple[str, ...]


class _Lines:
    """The lines of a text, kept as numbers: a text may have millions."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.starts = array("I", (0, *(match.end() for match in re.finditer("\n", text)), len(text)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, at: int) -> str:
        return self._text[self.starts[at] : self.starts[at + 1]].rstrip()

    def end(self, at: int) -> int:
        """Where the text of a line ends."""
        return self.starts[at] + len(self[at])


def blocks_of(text: str, *, markdown: bool = True) -> Iterator[Block]:
    """The blocks in order; only blank lines lie between them."""
    lines = _Lines(text)
    path: list[tuple[int, str]] = []
    at = 0
    while at < len(lines):
        if not lines[at]:
            at += 1
            continue
        shape, after = _block(lines, at) if markdown else (Shape.PARAGRAPH, _after_paragraph(lines, at))
        if shape is Shape.HEADING:
            level, title = _title(lines, at, after)
            path = [entry for entry in path if entry[0] < level] + [(level, title)]
        yield Block(shape, lines.starts[at], lines.end(after - 1), tuple(title for _, title in path if title))
        at = after


def _block(lines: _Lines, at: int) -> tuple[Shape, int]:
    """What begins at a line, and the line after it."""
    line = lines[at]
    fence = _opens(line)
    if fence is not None:
        return Shape.FENCE, _after_fence(lines, at + 1, fence)
    if _HEADING.match(line):
        return Shape.HEADING, at + 1
    if at + 1 < len(lines) and _UNDERLINE.match(lines[at + 1]) and not _UNDERLINE.match(line):
        return Shape.HEADING, at + 2
    after = at + 1
    while after < len(lines) and lines[after] and not _begins(lines[after]):
        after += 1
    return Shape.PARAGRAPH, after


def _after_paragraph(lines: _Lines, at: int) -> int:
    while at < len(lines) and lines[at]:
        at += 1
    return at


def _begins(line: str) -> bool:
    return _opens(line) is not None or _HEADING.match(line) is not None


def _opens(line: str) -> str | None:
    match = _FENCE.match(line)
    # What follows backticks must hold none: else it is code within a line.
    return None if match is None or (match.group(1)[0] == "`" and "`" in match.group(2)) else match.group(1)


def _after_fence(lines: _Lines, at: int, fence: str) -> int:
    """The line after a fence; one that is never closed goes to the last line with text."""
    last = at
    while at < len(lines):
        mark = lines[at].strip()
        at += 1
        if mark:
            last = at
        if len(mark) >= len(fence) and not mark.strip(fence[0]):
            break
    return last


def _title(lines: _Lines, at: int, after: int) -> tuple[int, str]:
    if after == at + 2:
        return (1 if "=" in lines[at + 1] else 2), lines[at].strip()[:_MOST_OF_A_HEADING]
    match = _HEADING.match(lines[at])
    marks, title = (match.group(1), match.group(2) or "") if match else ("#", "")
    without = title.rstrip("#")
    if without != title and without[-1:] in ("", " ", "\t"):
        title = without
    return len(marks), title.strip()[:_MOST_OF_A_HEADING]
