"""Settings of exports."""

from __future__ import annotations

from stationmaster_server.config.types import Group, Positive


class ExportSettings(Group):
    """Tasks of the kind `export`."""

    max_bytes: Positive = 1024 * 1024 * 1024
    """The largest that the files of one export are together."""
