"""Settings of what is stored."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.config.types import Duration, Group, Positive


class StorageSettings(Group):
    """The files of workspaces, and reports of executions, which are kept in the database."""

    max_file_bytes: Positive = 5 * 1024**3
    """The largest file that is taken in."""
    upload_retention: Duration = timedelta(days=1)
    """How long an upload that broke off can be gone on with. Until then what it set aside of the quotas is not free."""

    max_archive_bytes: Positive = 20 * 1024**3
    """How many bytes the files of an archive may have together, when it is made and when it is restored."""
    max_archive_files: Positive = 100_000
    """How many files these may be."""
    max_archive_ratio: Positive = 200
    """How many times the bytes that it has an archive from elsewhere may unpack to; 64 MiB it always may."""
    archive_retention: Duration = timedelta(days=180)
    """Archives that are older are deleted."""

    max_report_bytes: Positive = 32 * 1024 * 1024
    """The largest report that is stored, in one format."""
    report_retention: Duration = timedelta(days=180)
    """Reports that are older are deleted, and before that with the executions that they are of."""
