"""The tables of storage: reports with their bytes in pieces; what workspaces hold, and what is being changed there."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKeyConstraint, Index, Integer, LargeBinary, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

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

# One for each session that has had files: what they count for, and by whom (`user_id`, the session's owner).
workspaces = tenant_table(
    "workspaces",
    Column("session_id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("used_bytes", BigInteger, nullable=False, server_default="0"),
    Column("file_count", BigInteger, nullable=False, server_default="0"),
    # Changes with every change that is made here, so that counting all files can tell whether one came between.
    Column("revision", BigInteger, nullable=False, server_default="1"),
    timestamp("measured_at", nullable=True),
    # Set when its files may have changed otherwise: the time from which they are to be counted again.
    timestamp("measure_at", nullable=True),
)
# GetUsage of a user.
Index("workspaces_user_id_idx", workspaces.c.organization_id, workspaces.c.user_id)
# What is to be counted again, whatever its organization.
Index("workspaces_measure_at_idx", workspaces.c.measure_at, postgresql_where=text("measure_at IS NOT NULL"))

# What is known of a file that was uploaded, as long as the file has this etag.
workspace_files = tenant_table(
    "workspace_files",
    Column("session_id", Uuid, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("etag", Text, nullable=False),
    Column("sha256", Text, nullable=False),
)

uploads = tenant_table(
    "uploads",
    Column("session_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("path", Text, nullable=False),
    Column("size_bytes", BigInteger),
    Column("sha256", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("resumable", Boolean, nullable=False),
    # Of the quotas of its owner and the organization.
    Column("reserved_bytes", BigInteger, nullable=False, server_default="0"),
    # The stream that may go on with it: a new one takes it over, and the one before must stop.
    Column("writer", Uuid, nullable=False),
    Column("file", JSONB),
    timestamp("created_at", default_now=True),
    timestamp("expires_at"),
)
# The sweep of those that nobody goes on with.
Index("uploads_expires_at_idx", uploads.c.expires_at)

# A change of files that holds its paths until it is made. Once it is decided, and audited, it must be made: what a
# server that died left undone is done by another.
file_changes = tenant_table(
    "file_changes",
    Column("session_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("target", Text, nullable=False, server_default=""),
    Column("upload_id", Uuid),
    Column("etag", Text, nullable=False, server_default=""),
    Column("user_id", Uuid, nullable=False),
    Column("decided", Boolean, nullable=False, server_default=text("false")),
    # Of many changes that are made together: the lease of these is that of their batch.
    Column("batch_id", Uuid),
    timestamp("leased_until"),
)
# What a server that died has left.
Index("file_changes_leased_until_idx", file_changes.c.leased_until, postgresql_where=file_changes.c.batch_id.is_(None))
# What is left of a batch.
Index(
    "file_changes_batch_idx",
    file_changes.c.organization_id,
    file_changes.c.batch_id,
    file_changes.c.id,
    postgresql_where=file_changes.c.batch_id.isnot(None),
)

# Changes of one workspace that are decided at once. Known for a day longer than they take: a repeat of the call asks
# what has become of them.
file_batches = tenant_table(
    "file_batches",
    Column("session_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("decided", Boolean, nullable=False, server_default=text("false")),
    # How many changes could not be made, and why the first could not.
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("reason", Text, nullable=False, server_default=""),
    Column("error", Text, nullable=False, server_default=""),
    timestamp("created_at", default_now=True),
    # Until when a server prepares or makes it; absent: it is done.
    timestamp("leased_until", nullable=True),
)
# What a server that died has left.
Index("file_batches_leased_until_idx", file_batches.c.leased_until)
# The sweep of those that nobody asks for any more.
Index("file_batches_created_at_idx", file_batches.c.created_at)

# Archives of workspaces: being made, there, or about to be removed (`state` MAKING, READY, GONE). The bytes of each are
# in a home of its own, of its `id`, where files are kept.
archives = tenant_table(
    "archives",
    Column("id", Uuid, primary_key=True),
    Column("session_id", Uuid, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("format", Text, nullable=False),
    Column("state", Text, nullable=False),
    # Of the call that makes it: a repeat of that takes its place at once.
    Column("request_id", Uuid),
    # Of the quotas of its owner and the organization, while it is made.
    Column("reserved_bytes", BigInteger, nullable=False, server_default="0"),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("content_bytes", BigInteger, nullable=False, server_default="0"),
    Column("file_count", BigInteger, nullable=False, server_default="0"),
    Column("sha256", Text, nullable=False, server_default=""),
    timestamp("created_at", default_now=True),
    # Until when a server makes or removes it; after that another one removes it.
    timestamp("leased_until", nullable=True),
)
# A session has one, and one that is being made.
Index(
    "archives_session_key",
    archives.c.organization_id,
    archives.c.session_id,
    unique=True,
    postgresql_where=text("state = 'READY'"),
)
Index(
    "archives_making_key",
    archives.c.organization_id,
    archives.c.session_id,
    unique=True,
    postgresql_where=text("state = 'MAKING'"),
)
# ListArchives by owners and admins, and by others; the age that CleanupArchives asks for.
Index("archives_created_idx", archives.c.organization_id, archives.c.created_at, archives.c.id)
Index("archives_user_id_idx", archives.c.organization_id, archives.c.user_id, archives.c.created_at, archives.c.id)
# The sweep of those that are past their time, and of what servers left that died.
Index("archives_created_at_idx", archives.c.created_at, postgresql_where=text("state = 'READY'"))
Index("archives_leased_until_idx", archives.c.leased_until, postgresql_where=text("state <> 'READY'"))
