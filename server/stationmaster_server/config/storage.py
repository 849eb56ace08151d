"""Settings of what is stored."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.config.types import Duration, Group, Positive


class StorageSettings(Group):
    """Reports of executions, which are kept in the database."""

    max_report_bytes: Positive = 32 * 1024 * 1024
    """The largest report that is stored, in one format."""
    report_retention: Duration = timedelta(days=180)
    """Reports that are older are deleted, and before that with the executions that they are of."""
