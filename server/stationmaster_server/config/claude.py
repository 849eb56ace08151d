"""Settings of the runtime `claude`."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.config.types import Duration, Group, Positive


class ClaudeSettings(Group):
    """The runtime `claude`, which runs one command line of the Claude Agent SDK for each session in use."""

    enabled: bool = True
    """Offer the runtime where the SDK is installed and `models.anthropic` has a key."""
    max_live: Positive = 16
    """Command lines that this process has at most, at about 240 MB each. Idle ones make room; else a turn waits."""
    idle_timeout: Duration = timedelta(minutes=5)
    """A command line that no turn used for so long is ended. The next turn starts one again, in about a second."""
