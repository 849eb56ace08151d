"""Every tool that a server has of its own."""

from __future__ import annotations

from stationmaster_server.agents.tools.arithmetic import math_tools
from stationmaster_server.agents.tools.clock import time_tools
from stationmaster_server.agents.tools.files import file_tools
from stationmaster_server.agents.tools.toolbox import Toolbox


def builtin_toolbox() -> Toolbox:
    """files.*, math.evaluate and time.now."""
    return Toolbox((*file_tools(), *math_tools(), *time_tools()))
