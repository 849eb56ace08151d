"""HTML as Markdown by rule, element by element: for pages in which no main text is found. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count, zip_longest

from selectolax.lexbor import LexborNode

from stationmaster_server.tasks.crawl.urls import normalise

_DEEPEST = 60
"""Elements in each other; what is deeper is text without form."""
_LEFT_OUT = frozenset(
    {"aside", "footer", "head", "iframe", "nav", "noscript", "script", "style", "svg", "template", "title"}
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_INLINE = frozenset(
    (
        *(
            "a",
            "abbr",
            "b",
            "bdi",
            "bdo",
            "cite",
            "code",
            "del",
            "dfn",
            "em",
            "font",
            "i",
            "img",
            "ins",
            "kbd",
            "label",
        ),
        *("mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"),
    )
)
_MARKS = {"strong": "**", "b": "**", "em": "*", "i": "*"}


def to_markdown(body: LexborNode, base: str) -> str:
    """Headings, paragraphs, links, emphasis, lists, tables, quotations and code; links as `base` makes them whole."""
    return "\n\n".join(_blocks(body, base, 0))


def _blocks(node: LexborNode, base: str, depth: int) -> Iterator[str]:
    """The blocks in an element; what is inline between two of them is a paragraph."""
    run = ""
    for child in node.iter(include_text=True):
        tag = child.tag or ""
        if tag == "-text" or tag in _INLINE or tag == "br":
            run += _inline(child, base, depth + 1)
            continue
        if tag in _LEFT_OUT or tag.startswith(("-", "!", "_")):
            continue
        if paragraph := _lines(run):
            yield paragraph
        run = ""
        yield from (block for block in _block(child, tag, base, depth + 1) if block)
    if paragraph := _lines(run):
        yield paragraph


def _block(node: LexborNode, tag: str, base: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        yield _line(node.text(separator=" "))
    elif tag in _HEADINGS:
        heading = _line(_inlines(node, base, depth))
        yield f"{'#' * _HEADINGS[tag]} {heading}" if heading else ""
    elif tag == "pre":
        yield _fenced(node.text())
    elif tag in ("ul", "ol"):
        yield _list(node, tag == "ol", base, depth)
    elif tag == "table":
        yield _table(node, base, depth)
    elif tag == "blockquote":
        yield _indented("\n\n".join(_blocks(node, base, depth)), "> ", "> ")
    elif tag == "hr":
        yield "---"
    else:
        yield from _blocks(node, base, depth)


def _inlines(node: LexborNode, base: str, depth: int) -> str:
    return "".join(_inline(child, base, depth + 1) for child in node.iter(include_text=True))


def _inline(node: LexborNode, base: str, depth: int) -> str:
    tag = node.tag or ""
    if tag == "-text":
        return re.sub(r"\s+", " ", node.text())
    if tag == "br":
        return "\n"
    if tag == "img":
        return node.attributes.get("alt") or ""
    if tag in _LEFT_OUT or tag.startswith(("-", "!", "_")):
        return ""
    if depth > _DEEPEST:
        return node.text(separator=" ")
    if tag == "code":
        code = _line(node.text())
        return f"`{code}`" if code and "`" not in code else code
    text = _inlines(node, base, depth)
    words = _line(text)
    if not words:
        return " " if text else ""
    if tag == "a" and (url := normalise(node.attributes.get("href") or "", base)):
        return _around(text, f"[{words}]({url})")
    if mark := _MARKS.get(tag, ""):
        return _around(text, f"{mark}{words}{mark}")
    return text if tag in _INLINE else f" {text} "


def _around(text: str, marked: str) -> str:
    """What is marked, with the spaces that were inside of the marks outside of them."""
    return f"{' ' if text[0].isspace() else ''}{marked}{' ' if text[-1].isspace() else ''}"


def _list(node: LexborNode, ordered: bool, base: str, depth: int) -> str:
    items = []
    numbers = count(1)
    for child in node.iter():
        if child.tag != "li":
            continue
        mark = f"{next(numbers)}. " if ordered else "- "
        if text := "\n".join(_blocks(child, base, depth)):
            items.append(_indented(text, mark, " " * len(mark)))
    return "\n".join(items)


def _table(node: LexborNode, base: str, depth: int) -> str:
    rows = [
        [_line(_inlines(cell, base, depth)).replace("|", "\\|") for cell in row.iter() if cell.tag in ("th", "td")]
        for row in _rows(node)
    ]
    rows = [row for row in rows if any(row)]
    if not rows:
        return ""
    columns = list(zip_longest(*rows, fillvalue=""))
    head, *others = (f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))
    return "\n".join([head, f"| {' | '.join('---' for _ in columns)} |", *others])


def _rows(table: LexborNode) -> Iterator[LexborNode]:
    """Its own, not those of tables in its cells."""
    for child in table.iter():
        if child.tag == "tr":
            yield child
        elif child.tag in ("thead", "tbody", "tfoot"):
            yield from (row for row in child.iter() if row.tag == "tr")


def _fenced(text: str) -> str:
    text = text.strip("\n").rstrip()
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}" if text else ""


def _indented(text: str, first: str, others: str) -> str:
    lines = text.split("\n")
    return "\n".join((first if number == 0 else others) + line if line else "" for number, line in enumerate(lines))


def _line(text: str) -> str:
    return " ".join(text.split())


def _lines(text: str) -> str:
    return "\n".join(filter(None, map(_line, text.split("\n"))))
