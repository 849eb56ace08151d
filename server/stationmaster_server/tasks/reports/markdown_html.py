"""Blocks of Markdown as HTML: every text is escaped, and there is no attribute but those below."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

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
)

_LINK = Markup('<a href="{}" rel="noopener noreferrer nofollow">{}</a>')


def to_html(blocks: Blocks) -> Markup:
    """The blocks as HTML."""
    return Markup("\n").join(_block(block) for block in blocks)


def _block(block: Block) -> Markup:
    match block:
        case Paragraph(inlines):
            return Markup('<p dir="auto">{}</p>').format(_inlines(inlines))
        case Heading(level, inlines):  # below the headings of the report itself
            return Markup('<p class="h h{}" dir="auto">{}</p>').format(level, _inlines(inlines))
        case CodeBlock(text, _):
            return Markup("<pre><code>{}</code></pre>").format(text)
        case Quote(blocks):
            return Markup("<blockquote>{}</blockquote>").format(to_html(blocks))
        case ItemList():
            return _list(block)
        case Grid():
            return _table(block)
        case Rule():
            return Markup("<hr>")


def _list(block: ItemList) -> Markup:
    items = Markup("").join(Markup('<li dir="auto">{}</li>').format(_item(item)) for item in block.items)
    if block.start is None:
        return Markup("<ul>{}</ul>").format(items)
    return Markup('<ol start="{}">{}</ol>').format(block.start, items)


def _item(blocks: Blocks) -> Markup:
    """What is in an item; a paragraph that begins it needs no element of its own."""
    match blocks:
        case (Paragraph(inlines), *rest):
            return _inlines(inlines) + to_html(tuple(rest))
    return to_html(blocks)


def _table(grid: Grid) -> Markup:
    rows = [_row("th", grid.head, grid), *(_row("td", row, grid) for row in grid.rows)]
    return Markup('<div class="wide"><table>{}</table></div>').format(Markup("").join(rows))


def _row(tag: str, cells: tuple[Inlines, ...], grid: Grid) -> Markup:
    shown = zip(cells, grid.alignments, strict=False)
    cell = Markup(f'<{tag} class="{{}}" dir="auto">{{}}</{tag}>')  # noqa: S704 - of the two tags above
    return Markup("<tr>{}</tr>").format(Markup("").join(cell.format(align, _inlines(each)) for each, align in shown))


def _inlines(inlines: Inlines) -> Markup:
    return Markup("").join(piece for inline in inlines for piece in _inline(inline))


def _inline(inline: Inline) -> Iterator[Markup]:
    match inline:
        case Text(text):
            yield Markup("<br>").join(text.split("\n"))
        case Code(text):
            yield Markup("<code>{}</code>").format(text)
        case Styled(style, children):
            yield Markup("<{0}>{1}</{0}>").format(style.value, _inlines(children))
        case Link(target, children):
            yield _LINK.format(target, _inlines(children))
