"""Long texts in pieces that an encoder reads to their end."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SIZE = 900
"""Characters of a piece at most: in Latin script about as many as a small encoder reads."""
_DENSE_SIZE = 300
"""In scripts of which each character is a word, or is spelt out by encoders of English."""
_SAMPLE = 2_000
_LATIN_END = "\u0250"
_MOST = 24
"""Of one text; what comes after is found by its words alone."""
_ENDS = (re.compile(r"\n\s*\n"), re.compile(r"[.!?。!?؟]\s|[。!?]|\n"), re.compile(r"\s"))
"""Where a piece ends best: after a paragraph, a sentence, a word."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a piece of a text begins, and itself."""

    start: int
    text: str


def pieces(text: str, most: int = _MOST) -> list[Piece]:
    """The text in pieces, the same for the same text; none of blank ones."""
    size = _size(text)
    found: list[Piece] = []
    start = 0
    while len(found) < most:
        start += _blank(text, start)
        if start >= len(text):
            break
        end = _end(text, start, size)
        found.append(Piece(start, text[start:end].rstrip()))
        start = end
    return found


def _blank(text: str, start: int) -> int:
    """How many blank characters there are from here on."""
    at = start
    while at < len(text) and text[at].isspace():
        at += 1
    return at - start


def _size(text: str) -> int:
    sample = text[:_SAMPLE]
    dense = sum(character >= _LATIN_END for character in sample)
    return _DENSE_SIZE if 3 * dense > len(sample) else _SIZE


def _end(text: str, start: int, size: int) -> int:
    """Where the piece ends that begins there: in its second half, at the last best place."""
    if len(text) - start <= size:
        return len(text)
    half = start + size // 2
    for ending in _ENDS:
        ends = [found.end() for found in ending.finditer(text, half, start + size)]
        if ends:
            return ends[-1]
    return start + size
