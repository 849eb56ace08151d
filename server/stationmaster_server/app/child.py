"""One of several server processes: `python -m stationmaster_server.app.child`, started by `app/processes.py` alone.

Its settings come by standard input, which its parent holds open: the end of input means that the parent is gone. What
it has to say goes to standard output, a line each: `{"ready": ...}` or `{"fault": ...}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from stationmaster_server.app.loop import run
from stationmaster_server.app.root import App
from stationmaster_server.app.secrecy import keep_to_itself
from stationmaster_server.app.serving import serve
from stationmaster_server.config import StartupError, load
from stationmaster_server.telemetry import logs


def main() -> int:
    """Serve until told to stop; return the exit code."""
    keep_to_itself()
    try:
        wanted: dict[str, Any] = json.loads(sys.stdin.readline())
        settings = load(Path(wanted["config"]) if wanted["config"] else None, wanted["overrides"])
        logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)

        async def until_orphaned() -> None:
            stop = asyncio.Event()
            loop, parent = asyncio.get_running_loop(), sys.stdin.fileno()

            def parent_spoke() -> None:
                if not os.read(parent, 1024):
                    loop.remove_reader(parent)
                    stop.set()

            loop.add_reader(parent, parent_spoke)
            await serve(App(settings), lambda app: _tell({"ready": _facts(app)}), stop)

        run(until_orphaned())
    except StartupError as error:
        _tell({"fault": str(error), "exit_code": error.exit_code})
        return error.exit_code
    return 0


def _facts(app: App) -> dict[str, object]:
    return {"pid": os.getpid(), "admin_port": app.admin_port}


def _tell(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
