"""Reports: model to protobuf."""

from __future__ import annotations

from stationmaster.v1 import storage_pb2 as pb

from stationmaster_server.storage.model import Piece, StoredReport, report_name
from stationmaster_server.wire.fields import timestamp

REPORT_NAME = "reports/{report}"


def report_to_proto(report: StoredReport) -> pb.Report:
    """A report as its message."""
    return pb.Report(
        name=report_name(report.id),
        execution=f"executions/{report.execution_id}",
        title=report.title,
        format=pb.ReportFormat.Value(f"REPORT_FORMAT_{report.format.name}"),
        media_type=report.format.media_type,
        size_bytes=report.size_bytes,
        sha256=report.sha256,
        owner=f"users/{report.user_id}",
        create_time=timestamp(report.created_at),
    )


def piece_to_proto(piece: Piece) -> pb.DownloadReportResponse:
    """A piece of a download as its message."""
    report = None if piece.report is None else report_to_proto(piece.report)
    return pb.DownloadReportResponse(report=report, offset=piece.offset, data=piece.data)
