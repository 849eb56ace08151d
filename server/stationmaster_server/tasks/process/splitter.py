"""Splits a text into pieces: at headings, paragraphs and sentences where it can, inside words only where it must."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stationmaster_server.tasks.process.blocks import Block, Shape, blocks_of
from stationmaster_server.tasks.process.measure import Measure
from stationmaster_server.tasks.process.model import Cut, Piece, Splitting

# The end of a sentence: a mark and what closes around it before a space, a mark of a script without spaces, or a line
# before an item of a list or a row of a table.
_SENTENCE = re.compile(
    r"[.!?\u2026\u0964\u061f][\"'\u2019\u201d\u00bb)\]]*\s+|[\u3002\uff01\uff1f]\s*|\n(?=\s*(?:[-*+|]|\d+[.)]))"
)
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\s+")
_IN_PARAGRAPH = (_SENTENCE, _LINE, _WORD)
_IN_FENCE = (_LINE, _WORD)


@dataclass(frozen=True, slots=True)
class _Unit:
    """What is not cut any further."""

    start: int
    end: int
    block: Block


def split(text: str, how: Splitting, media_type: str = "text/markdown") -> list[Piece]:
    """The pieces, in order. Every character but white space is in one at least; none is longer than asked for."""
    return _Splitter(text, how, markdown=media_type == "text/markdown").pieces()


class _Splitter:
    def __init__(self, text: str, how: Splitting, *, markdown: bool) -> None:
        self._text = text
        self._markdown = markdown
        self._how = how
        self._measure = Measure(text, how.unit)
        self._overlap = self._measure.limit(how.overlap)
        # What a piece holds of its own: with the overlap it has the size that was asked for.
        self._limit = self._measure.limit(how.size) - self._overlap

    def pieces(self) -> list[Piece]:
        """All of them."""
        pieces: list[Piece] = []
        before: list[_Unit] = []
        for group in self._groups():
            start = self._with_overlap(group, before)
            end = group[-1].end
            headings = group[0].block.headings
            pieces.append(Piece(len(pieces), start, end, self._text[start:end], headings))
            before = group
        return pieces

    def _groups(self) -> Iterator[list[_Unit]]:
        """Units that make a piece together."""
        group: list[_Unit] = []
        for unit in self._units():
            if group and self._parts(group, unit):
                kept = _headings_at_the_end(group, unit)
                if kept and self._measure.length(kept[0].start, unit.end) <= self._limit:
                    yield group[: -len(kept)]
                    group = kept
                else:
                    yield group
                    group = []
            group.append(unit)
        if group:
            yield group

    def _parts(self, group: list[_Unit], unit: _Unit) -> bool:
        if self._measure.length(group[0].start, unit.end) > self._limit:
            return True
        # A heading with nothing below it but another heading begins no section of its own.
        begins = unit.block.shape is Shape.HEADING and group[-1].block.shape is not Shape.HEADING
        return begins and self._how.cut is Cut.HEADINGS

    def _units(self) -> Iterator[_Unit]:
        for block in blocks_of(self._text, markdown=self._markdown):
            cuts = _IN_FENCE if block.shape is Shape.FENCE else _IN_PARAGRAPH
            fine = self._how.cut is Cut.SENTENCES and block.shape is Shape.PARAGRAPH
            for start, end in self._cut(block.start, block.end, cuts, fine=fine):
                yield _Unit(start, end, block)

    def _cut(
        self, start: int, end: int, cuts: tuple[re.Pattern[str], ...], *, fine: bool = False
    ) -> Iterator[tuple[int, int]]:
        """A span as spans that fit, by the first of the cuts that does; `fine`: by the first one in any case."""
        if self._measure.length(start, end) <= self._limit and not fine:
            yield start, end
            return
        if not cuts:
            yield from self._chop(start, end)
            return
        at = start
        for match in cuts[0].finditer(self._text, start, end):
            if match.end() < end:
                yield from self._trimmed(at, match.end(), cuts[1:])
                at = match.end()
        yield from self._trimmed(at, end, cuts[1:])

    def _trimmed(self, start: int, end: int, cuts: tuple[re.Pattern[str], ...]) -> Iterator[tuple[int, int]]:
        end = start + len(self._text[start:end].rstrip())
        if end > start:
            yield from self._cut(start, end, cuts)

    def _chop(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        while start < end:
            stop = min(self._measure.furthest(start, self._limit), end)
            yield start, stop
            start = stop

    def _with_overlap(self, group: list[_Unit], before: list[_Unit]) -> int:
        """Where a piece begins that repeats the end of the one before it, whole words of it."""
        start, block = group[0].start, group[0].block
        if not before or not self._overlap or block.shape is Shape.HEADING:
            return start
        # A part of a fence is no good beginning.
        fences = (unit.end for unit in before if unit.block.shape is Shape.FENCE)
        least = max(self._measure.earliest(start, self._overlap), before[0].start + 1, max(fences, default=0))
        return self._begin_of_word(least, start, before)

    def _begin_of_word(self, least: int, start: int, before: list[_Unit]) -> int:
        units = [unit.start for unit in before if unit.start >= least]
        if units:
            return units[0]
        match = _WORD.search(self._text, least, start)
        if least > 0 and self._text[least - 1].isspace() and not self._text[least].isspace():
            return least
        return match.end() if match else start


def _headings_at_the_end(group: list[_Unit], unit: _Unit) -> list[_Unit]:
    """Headings belong to what comes after them."""
    at = len(group)
    while at > 1 and group[at - 1].block.shape is Shape.HEADING and unit.block.shape is not Shape.HEADING:
        at -= 1
    return group[at:]
