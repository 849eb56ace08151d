"""A report as PDF, typeset by Typst: the template is ours, everything of the report's is data to it."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any

import typst

from stationmaster_server.tasks.reports import figures
from stationmaster_server.tasks.reports.bounds import bounded, line
from stationmaster_server.tasks.reports.chart import Chart, chart, legend
from stationmaster_server.tasks.reports.markdown import parse, reads_from_right
from stationmaster_server.tasks.reports.markdown_typst import breakable, code, to_data
from stationmaster_server.tasks.reports.model import Entry, Report, Section, Table, ToolCall

_FOLDER = Path(__file__).parent
_LONG = 60
"""Characters of a cell whose column is the widest."""
_LOW = 400
"""Characters of a row that surely fits on a page together with another one."""


def as_pdf(report: Report) -> bytes:
    """The report as a PDF with tags, bookmarks, page numbers and its title."""
    report = bounded(report)
    data = json.dumps(_data(report), ensure_ascii=False)
    try:
        return typst.compile(
            (_FOLDER / "page.typ").read_bytes(),
            font_paths=_fonts(),
            sys_inputs={"report": data},
            timestamp=(report.finished_at or report.created_at).replace(microsecond=0),
        )
    except BaseException as error:
        if type(error).__module__ == "pyo3_runtime":  # a panic, which is no Exception and cannot be sent on
            raise RuntimeError(f"the PDF of {report.execution} could not be typeset: {error}") from None
        raise


@cache
def _fonts() -> typst.Fonts:
    """Typst's own fonts and those that come along; none of the machine, which may have others of the same names."""
    return typst.Fonts(include_system_fonts=False, font_paths=[_FOLDER / "fonts"])


def _data(report: Report) -> dict[str, Any]:
    drawn, usage = chart(report), figures.usage(report)
    verdict = "good" if report.succeeded else "bad" if report.failed else ""
    made = (report.finished_at or report.created_at).astimezone(UTC)
    return {
        "name": report.title,
        "title": breakable(report.title),
        "running": line(report.title, 70),
        "rtl": reads_from_right(report.title),
        "kind": breakable(figures.called(report.kind)),
        "state": line(figures.called(report.state), 30),
        "verdict": verdict,
        "execution": breakable(report.execution),
        "description": f"Report of {report.execution}",
        "date": {name: getattr(made, name) for name in ("year", "month", "day", "hour", "minute", "second")},
        "headline": _pairs(figures.headline(report), 12),
        "facts": _pairs(figures.facts(report)),
        "errors": [(name, breakable(text, 60)) for name, text in figures.errors(report)],
        "chart": _chart(drawn) if drawn else None,
        "usage": _table(usage) if usage else None,
        "counters": _pairs(figures.counters(report)),
        "messages": [(figures.clock(each.at), breakable(each.text)) for each in report.progress.messages],
        "sections": [_section(section) for section in report.sections],
        "conversation": [_entry(entry) for entry in report.conversation],
        "notes": [breakable(note) for note in report.notes],
    }


def _pairs(pairs: list[tuple[str, str]], longest: int = 32) -> list[tuple[str, str]]:
    return [(breakable(name, longest), breakable(value, longest)) for name, value in pairs]


def _chart(drawn: Chart) -> dict[str, Any]:
    lanes = [dataclasses.asdict(lane) | {"label": line(lane.label, 24)} for lane in drawn.lanes]
    return {"ticks": [dataclasses.asdict(tick) for tick in drawn.ticks], "lanes": lanes, "legend": legend(drawn)}


def _table(table: Table) -> dict[str, Any]:
    columns = [breakable(column, 16) for column in table.columns]
    rows = [[breakable(cell, 16) for cell in row] for row in table.rows]
    longest = [max(len(row[at]) for row in (table.columns, *table.rows)) for at in range(len(columns))]
    short = figures.short_columns(table)
    if len(short) == len(columns):
        short = short - {0}  # one has to take what is left
    widths = [0 if at in short else min(length, _LONG) for at, length in enumerate(longest)]
    together = len(rows) > 1 and all(sum(map(len, row)) <= _LOW for row in rows[-2:])
    return {
        "columns": columns,
        "rows": rows,
        "numeric": sorted(table.numeric),
        "widths": widths,
        "together": together,
    }


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": breakable(section.title),
        "rtl": reads_from_right(section.title),
        "text": to_data(parse(section.text)),
        "table": _table(section.table) if section.table else None,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "role": figures.called(entry.role),
        "asks": entry.role.lower() == "user",
        "byline": breakable(figures.byline(entry)),
        "text": to_data(parse(entry.text)),
        "calls": [_call(call) for call in entry.tool_calls],
    }


def _call(call: ToolCall) -> dict[str, Any]:
    shown = (("arguments", call.arguments), ("result", call.result))
    return {
        "name": breakable(call.name),
        "byline": figures.call_byline(call),
        "failed": call.failed,
        "shown": [(name, code(text)) for name, text in shown if text],
    }
