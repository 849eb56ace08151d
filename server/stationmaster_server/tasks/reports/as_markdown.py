"""A report as Markdown that is pleasant to read as it stands."""

from __future__ import annotations

from collections.abc import Iterator

from stationmaster_server.tasks.reports import figures
from stationmaster_server.tasks.reports.bounds import bounded
from stationmaster_server.tasks.reports.chart import chart
from stationmaster_server.tasks.reports.chart_text import to_text
from stationmaster_server.tasks.reports.markdown import parse
from stationmaster_server.tasks.reports.markdown_text import escaped, fenced, row_of, to_markdown
from stationmaster_server.tasks.reports.model import Entry, Report, Section, Table


def as_markdown(report: Report) -> bytes:
    """The report as Markdown in UTF-8. What agents and tools wrote cannot add headings, HTML or images to it."""
    parts = [part for part in _parts(bounded(report)) if part]
    return ("\n\n".join(parts) + "\n").encode()


def _parts(report: Report) -> Iterator[str]:
    yield f"# {escaped(report.title)}"
    yield f"{escaped(figures.called(report.kind))}: **{escaped(figures.called(report.state))}**"
    yield _pairs([*figures.headline(report), *figures.facts(report)])
    errors = figures.errors(report)
    if errors:
        yield "## Errors"
        for name, text in errors:
            yield f"**{escaped(name)}**"
            yield fenced(text)
    yield from _timings(report)
    usage = figures.usage(report)
    if usage:
        yield "## Usage"
        yield _table(usage)
    yield from _progress(report)
    for section in report.sections:
        yield from _section(section)
    if report.conversation:
        yield "## Conversation"
        for entry in report.conversation:
            yield from _entry(entry)
    if report.notes:
        yield "## Notes"
        yield "\n".join(f"- {escaped(note)}".replace("\n", " ") for note in report.notes)


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return "\n".join(f"- {escaped(name)}: {escaped(value, start=False)}" for name, value in pairs)


def _table(table: Table) -> str:
    ruler = ["---:" if at in table.numeric else "---" for at in range(len(table.columns))]
    lines = [[escaped(cell, start=False) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join(row_of(cells) for cells in (lines[0], ruler, *lines[1:]))


def _timings(report: Report) -> Iterator[str]:
    drawn = chart(report)
    if drawn:
        yield "## Timings"
        yield fenced(to_text(drawn))


def _progress(report: Report) -> Iterator[str]:
    counters, messages = figures.counters(report), report.progress.messages
    if counters or messages:
        yield "## Progress"
        yield _pairs(counters)
        yield "\n".join(f"* {figures.clock(message.at)} {escaped(message.text)}" for message in messages)


def _section(section: Section) -> Iterator[str]:
    yield f"## {escaped(section.title)}"
    yield to_markdown(parse(section.text))
    if section.table:
        yield _table(section.table)


def _entry(entry: Entry) -> Iterator[str]:
    byline = figures.byline(entry)
    yield f"### {escaped(figures.called(entry.role))}"
    yield f"_{escaped(byline)}_" if byline else ""
    yield to_markdown(parse(entry.text))
    for call in entry.tool_calls:
        state = figures.call_byline(call)
        yield f"**Tool `{call.name.replace('`', '')}`**" + (f" ({escaped(state)})" if state else "")
        yield fenced(call.arguments) if call.arguments else ""
        yield fenced(call.result) if call.result else ""
