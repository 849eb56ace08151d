"""Every tool that a server has of its own."""

from __future__ import annotations

from stationmaster_server.agents.tools.arithmetic import math_tools
from stationmaster_server.agents.tools.bucket_files import BucketFiles
from stationmaster_server.agents.tools.clock import time_tools
from stationmaster_server.agents.tools.files import file_tools
from stationmaster_server.agents.tools.toolbox import Toolbox
from stationmaster_server.storage.places.place import Place


def builtin_toolbox(bucket: Place | None = None) -> Toolbox:
    """files.*, math.evaluate and time.now; `bucket`: where workspaces are, when they are no folders of this host."""
    files = file_tools() if bucket is None else BucketFiles(bucket).tools()
    return Toolbox((*files, *math_tools(), *time_tools()))
