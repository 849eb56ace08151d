"""Rendering away from the event loop: by whatever runs a function in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Protocol

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


class Run(Protocol):
    """Calls a function of a module in a process of its own, such as `Pools.cpu`."""

    async def __call__(self, function: Renderer, report: Report, /, *, timeout: timedelta) -> bytes:
        """What the function returns; an error when it takes longer."""


async def render(report: Report, report_format: ReportFormat, run: Run) -> bytes:
    """The report in a format. Raises what `run` raises, above all DeadlineExceeded."""
    return await run(RENDERERS[report_format], report, timeout=TIME_LIMIT)
