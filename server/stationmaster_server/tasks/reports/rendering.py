"""The formats and their functions, which compute for long: they belong into a process pool, with the time limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from stationmaster_server.storage.model import ReportFormat
from stationmaster_server.tasks.reports.as_html import as_html
from stationmaster_server.tasks.reports.as_json import as_json
from stationmaster_server.tasks.reports.as_markdown import as_markdown
from stationmaster_server.tasks.reports.as_pdf import as_pdf
from stationmaster_server.tasks.reports.model import Report

Renderer = Callable[[Report], bytes]

RENDERERS: Mapping[ReportFormat, Renderer] = {
    ReportFormat.JSON: as_json,
    ReportFormat.MARKDOWN: as_markdown,
    ReportFormat.HTML: as_html,
    ReportFormat.PDF: as_pdf,
}
TIME_LIMIT = timedelta(seconds=60)
"""Long reports in PDF take a second or two; what takes so long was made to."""
