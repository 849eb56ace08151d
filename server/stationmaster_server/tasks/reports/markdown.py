"""Markdown as a tree of a few kinds of blocks, of bounded depth: what every format draws from, and the only reader."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from markdown_it import MarkdownIt
from markdown_it.token import Token

from stationmaster_server.tasks.reports.bounds import COLUMNS, ROWS

_DEEPEST = 24
"""Levels of the parser: about twelve lists in each other. It drops what is deeper, so such a text is shown as it is."""
_DEEPEST_STYLE = 6
_LINKS = re.compile(r"(https?://|mailto:)\S{1,2000}", re.IGNORECASE)
_PARSER = MarkdownIt("commonmark", {"html": False, "maxNesting": _DEEPEST}).enable(["table", "strikethrough"])


class Style(StrEnum):
    """How a run of text is set."""

    STRONG = "strong"
    EMPHASIS = "em"
    STRUCK = "del"


@dataclass(frozen=True, slots=True)
class Text:
    """Text, in which a newline ends a line."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of code in a line."""

    text: str


@dataclass(frozen=True, slots=True)
class Styled:
    """Inlines in a style."""

    style: Style
    children: Inlines


@dataclass(frozen=True, slots=True)
class Link:
    """Inlines that lead to a page of the web or to a mailbox."""

    target: str
    children: Inlines


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph."""

    inlines: Inlines


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of the level 1 to 6."""

    level: int
    inlines: Inlines


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Lines that are shown as they are."""

    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Quote:
    """Blocks of somebody else's."""

    blocks: Blocks


@dataclass(frozen=True, slots=True)
class ItemList:
    """A list; `start` is the first number of an ordered one, None of another."""

    items: tuple[Blocks, ...]
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its alignments (`left`, `center`, `right`), its head and its rows."""

    alignments: tuple[str, ...]
    head: tuple[Inlines, ...]
    rows: tuple[tuple[Inlines, ...], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across."""


Inline = Text | Code | Styled | Link
Inlines = tuple[Inline, ...]
Block = Paragraph | Heading | CodeBlock | Quote | ItemList | Grid | Rule
Blocks = tuple[Block, ...]

_STYLES = {"strong_open": Style.STRONG, "em_open": Style.EMPHASIS, "s_open": Style.STRUCK}


def parse(text: str) -> Blocks:
    """The blocks of a text. Raw HTML is text; images are links; links lead to the web or to mailboxes only."""
    tokens = _PARSER.parse(text)
    if any(token.nesting == 1 and token.level >= _DEEPEST - 1 for token in tokens):
        return (CodeBlock(text),)
    return tuple(_Reader(text, tokens).blocks(""))


def reads_from_right(text: str) -> bool:
    """Whether the first letter that has a direction is of a script that is written from right to left."""
    for character in text[:500]:
        match unicodedata.bidirectional(character):
            case "R" | "AL":
                return True
            case "L":
                return False
    return False


def plain(inlines: Inlines) -> str:
    """The text of inlines without their styles."""
    parts = []
    for inline in inlines:
        match inline:
            case Text(text) | Code(text):
                parts.append(text)
            case Styled(_, children) | Link(_, children):
                parts.append(plain(children))
    return "".join(parts)


class _Reader:
    """Reads the parser's tokens, which are flat, into a tree."""

    def __init__(self, text: str, tokens: Sequence[Token]) -> None:
        self._lines = text.split("\n")
        self._tokens = iter(tokens)

    def blocks(self, end: str) -> Iterator[Block]:
        """The blocks up to the token that closes what they are in."""
        for token in self._tokens:
            match token.type:
                case kind if kind == end:
                    return
                case "paragraph_open":
                    yield Paragraph(self._line_of("paragraph_close"))
                case "heading_open":
                    yield Heading(int(token.tag[1:]), self._line_of("heading_close"))
                case "fence" | "code_block":
                    yield CodeBlock(token.content.rstrip("\n"), _language(token.info))
                case "blockquote_open":
                    yield Quote(tuple(self.blocks("blockquote_close")))
                case "bullet_list_open":
                    yield ItemList(tuple(self._items("bullet_list_close")))
                case "ordered_list_open":
                    yield ItemList(tuple(self._items("ordered_list_close")), int(token.attrs.get("start", 1)))
                case "table_open":
                    yield self._table(token)
                case "hr":
                    yield Rule()

    def _line_of(self, end: str) -> Inlines:
        found: Inlines = ()
        for token in self._tokens:
            if token.type == end:
                break
            found = _inlines(token.children or [])
        return found

    def _items(self, end: str) -> Iterator[Blocks]:
        for token in self._tokens:
            if token.type == end:
                return
            yield tuple(self.blocks("list_item_close"))

    def _table(self, opening: Token) -> Block:
        rows: list[list[Inlines]] = []
        alignments: list[str] = []
        for token in self._tokens:
            match token.type:
                case "table_close":
                    break
                case "tr_open":
                    rows.append([])
                case "th_open":
                    alignments.append(str(token.attrs.get("style", "")).rpartition(":")[2] or "left")
                case "inline":
                    rows[-1].append(_inlines(token.children or []))
        if (len(alignments) > COLUMNS or len(rows) > ROWS) and opening.map:
            return CodeBlock("\n".join(self._lines[slice(*opening.map)]))
        return Grid(tuple(alignments), tuple(rows[0]), tuple(tuple(row) for row in rows[1:]))


def _language(info: str) -> str:
    word = info.split()[0] if info.split() else ""
    return word if re.fullmatch(r"[A-Za-z0-9+#_.-]{1,20}", word) else ""


def _inlines(tokens: Sequence[Token]) -> Inlines:
    """The inlines of a line; styles in too many styles are left out."""
    done: list[tuple[Token, list[Inline]]] = []
    current: list[Inline] = []
    for token in tokens:
        if token.nesting == 1:
            done.append((token, current))
            current = []
        elif token.nesting == -1:
            opening, outer = done.pop()
            outer.extend(_wrapped(opening, tuple(current), len(done)))
            current = outer
        else:
            _put(current, token)
    return tuple(current)


def _wrapped(opening: Token, children: Inlines, depth: int) -> Iterator[Inline]:
    if opening.type != "link_open":
        if depth < _DEEPEST_STYLE:
            yield Styled(_STYLES[opening.type], children)
        else:
            yield from children
        return
    yield from _link(str(opening.attrs.get("href", "")), children)


def _link(target: str, children: Inlines) -> Iterator[Inline]:
    shown = children or (Text(target),)
    if _LINKS.fullmatch(target):
        yield Link(target, shown)
        return
    yield from shown
    if target and plain(shown) != target:
        yield Text(f" ({target})")


def _put(current: list[Inline], token: Token) -> None:
    match token.type:
        case "code_inline":
            current.append(Code(token.content))
        case "softbreak" | "hardbreak":
            _add_text(current, "\n")
        case "image":
            alt = plain(_inlines(token.children or []))
            current.extend(_link(str(token.attrs.get("src", "")), (Text(f"[image: {alt}]" if alt else "[image]"),)))
        case _:
            _add_text(current, token.content)


def _add_text(current: list[Inline], text: str) -> None:
    if not text:
        return
    if current and isinstance(current[-1], Text):
        current[-1] = Text(current[-1].text + text)
    else:
        current.append(Text(text))
