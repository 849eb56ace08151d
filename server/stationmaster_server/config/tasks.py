"""Settings of tasks."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.config.types import Duration, Group


class TaskSettings(Group):
    """Executions of tasks."""

    keep_executions: Duration = timedelta(days=90)
    """Executions that ended longer ago are forgotten with all that they left: streams, reports, pages, exported files.
    The newest of each task stays."""
