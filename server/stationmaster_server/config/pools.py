"""Settings of the pools of processes and threads."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from stationmaster_server.config.types import Duration, Group, Positive


class PoolSettings(Group):
    """What would hold the server up: computing, in processes of a pool, and calls that block, in threads of another."""

    processes: Positive = 2
    """Processes that this server computes in at most. They are started when they are needed."""
    memory: Annotated[int, Field(ge=67_108_864)] = 1_073_741_824
    """Bytes of memory that each of them may have (on Linux)."""
    idle_timeout: Duration = timedelta(minutes=2)
    """A process that had nothing to do for so long is ended."""
    threads: Positive = 16
    """Calls that block which this server makes at once at most."""
    max_waiting: Positive = 1_000
    """Calls that wait for a process, and calls that wait for a thread, at most. More are refused."""
    max_wait: Duration = timedelta(seconds=30)
    """How long a call waits for a process or a thread before it is refused."""
