"""Reports of executions, as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

PIECE_BYTES = 256 * 1024
"""Reports are stored, read and sent in pieces of so many bytes; the last one may be shorter."""


class ReportFormat(StrEnum):
    """How a report is written."""

    JSON = "JSON"
    MARKDOWN = "MARKDOWN"
    HTML = "HTML"
    PDF = "PDF"

    @property
    def media_type(self) -> str:
        """The type that browsers and programs know it by."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    ReportFormat.JSON: "application/json",
    ReportFormat.MARKDOWN: "text/markdown; charset=utf-8",
    ReportFormat.HTML: "text/html; charset=utf-8",
    ReportFormat.PDF: "application/pdf",
}


@dataclass(frozen=True, slots=True)
class NewReport:
    """A report to be stored: of which execution, and its bytes."""

    execution_id: UUID
    title: str
    format: ReportFormat
    data: bytes


@dataclass(frozen=True, slots=True)
class StoredReport:
    """What is known of a report without its bytes."""

    id: UUID
    user_id: UUID
    execution_id: UUID
    title: str
    format: ReportFormat
    size_bytes: int
    sha256: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a report; the first piece of a download brings the report."""

    report: StoredReport | None
    offset: int
    data: bytes


def report_name(report_id: UUID) -> str:
    """`reports/{id}`."""
    return f"reports/{report_id}"
