"""Blocks of Markdown as Markdown again: by themselves, whatever they were cut from or tried to break out of."""

from __future__ import annotations

import re

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
    Style,
    Styled,
    Text,
)

_MARKS = {Style.STRONG: "**", Style.EMPHASIS: "*", Style.STRUCK: "~~"}
_SPECIAL = re.compile(r"[\\`*\[\]<>~|]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w)|!$")
_AT_START = re.compile(r"^(\d{0,9})([#+=.)-])")
_ALIGNMENTS = {"left": "---", "center": ":---:", "right": "---:"}


def to_markdown(blocks: Blocks) -> str:
    """The blocks as Markdown."""
    parts: list[str] = []
    before: Block | None = None
    follows = False  # a list that follows a list has other marks, or the two would be one
    for block in blocks:
        follows = isinstance(block, ItemList) and isinstance(before, ItemList) and not follows
        parts.append(_list(block, follows=follows) if isinstance(block, ItemList) else _block(block))
        before = block
    return "\n\n".join(parts)


def _block(block: Block) -> str:
    match block:
        case Paragraph(inlines):
            return _inlines(inlines)
        case Heading(level, inlines):  # below the headings of the report itself
            return f"{'#' * min(6, level + 3)} {_inlines(inlines, start=False)}".replace("\\\n", " ")
        case CodeBlock(text, language):
            return fenced(text, language)
        case Quote(blocks):
            return "\n".join(f"> {line}".rstrip() for line in to_markdown(blocks).split("\n"))
        case ItemList():
            return _list(block)
        case Grid(alignments, head, rows):
            ruler = [_ALIGNMENTS[alignment] for alignment in alignments]
            lines = [[_cell(cell) for cell in row] for row in (head, *rows)]
            return "\n".join(row_of(cells) for cells in (lines[0], ruler, *lines[1:]))
        case Rule():
            return "***"


def fenced(text: str, language: str = "") -> str:
    """Lines as they are, between fences that are longer than any of theirs."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def row_of(cells: list[str]) -> str:
    """A row of a table, of cells that are Markdown."""
    return "| " + " | ".join(cell.replace("\\\n", " ") for cell in cells) + " |"


def escaped(text: str, *, start: bool = True) -> str:
    """Text that means itself; `start` says whether it begins a line."""
    first, *others = _SPECIAL.sub(r"\\\g<0>", text).split("\n")
    lines = [_begun(first.lstrip()) if start else first, *(_begun(line.lstrip()) for line in others)]
    return "\\\n".join(lines)


def _begun(line: str) -> str:
    """A line that does not begin a list, a heading or a line across."""
    return _AT_START.sub(r"\1\\\2", line)


def _list(block: ItemList, *, follows: bool = False) -> str:
    bullet, dot = ("*", ")") if follows else ("-", ".")
    marks = [bullet if block.start is None else f"{block.start + at}{dot}" for at in range(len(block.items))]
    return "\n".join(_item(item, mark) for item, mark in zip(block.items, marks, strict=True))


def _item(blocks: Blocks, mark: str) -> str:
    margin = " " * (len(mark) + 1)
    match blocks:
        case (Paragraph() as paragraph, ItemList(items, None) as inner) if items[0]:
            text = f"{_block(paragraph)}\n{_list(inner)}"
        case _:
            text = to_markdown(blocks)
    first, *others = text.split("\n")
    return "\n".join([f"{mark} {first}".rstrip(), *(f"{margin}{line}".rstrip() for line in others)])


def _cell(inlines: Inlines) -> str:
    """What is in a cell: a bar would end it, in code as well."""
    return re.sub(r"(?<!\\)\|", r"\\|", _inlines(inlines, start=False))


def _inlines(inlines: Inlines, *, start: bool = True) -> str:
    return "".join(_inline(inline, start and at == 0) for at, inline in enumerate(inlines))


def _inline(inline: Inline, start: bool) -> str:
    match inline:
        case Text(text):
            return escaped(text, start=start)
        case Code(text):
            return _code(text)
        case Styled(style, children):
            return f"{_MARKS[style]}{_inlines(children, start=False)}{_MARKS[style]}"
        case Link(target, children):
            return f"[{_inlines(children, start=False)}](<{re.sub(r'[<>]', _percent, target)}>)"


def _code(text: str) -> str:
    """A piece of code between marks that it has not."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{space}{text}{space}{fence}"


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"
