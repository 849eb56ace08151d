"""A report as one page of HTML that loads nothing, runs nothing, and says so to the browser."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from stationmaster_server.tasks.reports import figures
from stationmaster_server.tasks.reports.bounds import bounded
from stationmaster_server.tasks.reports.chart import chart, legend
from stationmaster_server.tasks.reports.chart_svg import to_svg
from stationmaster_server.tasks.reports.markdown import parse
from stationmaster_server.tasks.reports.markdown_html import to_html
from stationmaster_server.tasks.reports.model import Report

_FOLDER = Path(__file__).parent


def as_html(report: Report) -> bytes:
    """The report as a page in UTF-8."""
    report = bounded(report)
    drawn, usage = chart(report), figures.usage(report)
    errors, counters = figures.errors(report), figures.counters(report)
    parts = [
        *([("errors", "Errors")] if errors else []),
        *([("timings", "Timings")] if drawn else []),
        *([("usage", "Usage")] if usage else []),
        *([("progress", "Progress")] if counters or report.progress.messages else []),
        *((f"section-{number}", section.title) for number, section in enumerate(report.sections, 1)),
        *([("conversation", "Conversation")] if report.conversation else []),
        *([("notes", "Notes")] if report.notes else []),
    ]
    page = _template().render(
        report=report,
        parts=parts,
        figures=figures.headline(report),
        facts=figures.facts(report),
        errors=errors,
        chart=to_svg(drawn) if drawn else None,
        legend=legend(drawn) if drawn else [],
        usage=usage,
        counters=counters,
    )
    return page.encode()


@cache
def _template() -> Template:
    css = (_FOLDER / "page.css").read_text()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(_FOLDER))
    environment.filters["markdown"] = lambda text: to_html(parse(text))
    environment.filters["short_columns"] = figures.short_columns
    environment.globals |= {
        "css": Markup(css),  # noqa: S704 - our own, and the policy names its hash
        "policy": f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        "called": figures.called,
        "clock": figures.clock,
        "byline": figures.byline,
        "call_byline": figures.call_byline,
    }
    return environment.get_template("page.html")
