"""Blocks of Markdown as the data that `page.typ` draws: lists that begin with a kind, never code."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from stationmaster_server.tasks.reports.markdown import (
    Block,
    Blocks,
    Code,
    CodeBlock,
    Grid,
    Heading,
    Inline,
    Inlines,
    ItemList,
    Link,
    Paragraph,
    Quote,
    Rule,
    Styled,
    Text,
    plain,
    reads_from_right,
)

_MOST_COLOURED = 4_000
_LONGEST_COLOURED_LINE = 300
_LONGEST_REPEATED_HEAD = 200
_JOINER, _BREAK = "\u200d", "\u200b"
_BROKEN_ANYWHERE = f"{_BREAK}\u1100-\u11ff\u2e80-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
"""Scripts of East Asia, whose lines may end after every character."""


def to_data(blocks: Blocks) -> list[Any]:
    """The blocks as data."""
    return [_block(block) for block in blocks]


def breakable(text: str, longest: int = 32) -> str:
    """The text with places to break where words are longer than a line may be; never within a character."""
    return re.sub(rf"[^\s{_BROKEN_ANYWHERE}]{{{longest},}}", lambda word: _broken(word[0], longest), text)


def _broken(word: str, longest: int) -> str:
    pieces, start = [], 0
    for at in range(1, len(word)):
        if at - start >= longest // 4 and not _clings(word[at], word[at - 1]):
            pieces.append(word[start:at])
            start = at
    return _BREAK.join([*pieces, word[start:]])


def _clings(character: str, before: str) -> bool:
    """Whether a character belongs to the one before: an accent, a part of an emoji, a letter of joined writing."""
    kind = unicodedata.category(character)
    joined = unicodedata.bidirectional(character) == "AL"
    return kind in ("Mn", "Me", "Mc", "Cf", "Sk") or before == _JOINER or joined


def _block(block: Block) -> list[Any]:
    match block:
        case Paragraph(inlines):
            return ["p", _inlines(inlines), reads_from_right(plain(inlines))]
        case Heading(level, inlines):
            return ["h", level, _inlines(inlines), reads_from_right(plain(inlines))]
        case CodeBlock(text, language):
            return code(text, language)
        case Quote(blocks):
            return ["q", to_data(blocks)]
        case ItemList(items, None):
            return ["ul", [to_data(item) for item in items]]
        case ItemList(items, start):
            return ["ol", start, [to_data(item) for item in items]]
        case Grid():
            low = sum(len(plain(cell)) for cell in block.head) <= _LONGEST_REPEATED_HEAD
            return ["t", block.alignments, _cells(block.head), [_cells(row) for row in block.rows], low]
        case Rule():
            return ["hr"]


def code(text: str, language: str = "") -> list[Any]:
    """Lines as they are; coloured when they are few, since colouring takes time."""
    lines = text.expandtabs(4).split("\n")
    few = len(text) <= _MOST_COLOURED and max(map(len, lines)) <= _LONGEST_COLOURED_LINE
    return ["pre", breakable("\n".join(lines), 60), language if few else ""]


def _cells(cells: tuple[Inlines, ...]) -> list[Any]:
    return [_inlines(cell, 16) for cell in cells]


def _inlines(inlines: Inlines, longest: int = 32) -> list[Any]:
    return [piece for inline in inlines for piece in _inline(inline, longest)]


def _inline(inline: Inline, longest: int) -> list[Any]:
    match inline:
        case Text(text):
            return [piece for line in text.split("\n") for piece in (["n"], breakable(line, longest))][1:]
        case Code(text):
            return [["c", breakable(text, longest)]]
        case Styled(style, children):
            return [[style.value, _inlines(children, longest)]]
        case Link(target, children):
            return [["a", target, _inlines(children, longest)]]
