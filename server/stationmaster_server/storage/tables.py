"""The tables of reports: what is known of each, and its bytes in pieces."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, Integer, LargeBinary, Text, Uuid, text

from stationmaster_server.db.schema import tenant_table, timestamp

reports = tenant_table(
    "reports",
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("execution_id", Uuid, nullable=False),
    Column("title", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    timestamp("created_at", default_now=True),
)
# Of an execution there is one in a format; those of an execution.
Index("reports_execution_format_key", reports.c.organization_id, reports.c.execution_id, reports.c.format, unique=True)
# ListReports by owners and admins, and by others.
Index(None, reports.c.organization_id, reports.c.created_at, reports.c.id)
Index(None, reports.c.organization_id, reports.c.user_id, reports.c.created_at, reports.c.id)
# ListReports with `execution = "executions/…"`.
Index("reports_execution_idx", reports.c.organization_id, text("('executions/' || execution_id::text)"))
# The sweep of those that are past their time.
Index("reports_created_at_idx", reports.c.created_at)

report_pieces = tenant_table(
    "report_pieces",
    # `WHERE organization_id = $1 AND report_id = $2 AND number = $3`: a download.
    Column("report_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    ForeignKeyConstraint(
        ["organization_id", "report_id"], ["reports.organization_id", "reports.id"], ondelete="CASCADE"
    ),
)
