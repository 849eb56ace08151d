"""`stationmaster-server serve`, whose schedules go by the time that a file shows: `clocked_server.py FILE`.

Beside it the file has the moment, in seconds of the machine's clock, from which on it is shown. Whoever looks before
waits for it: so servers that look now and then do so at once, and meet.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path

from stationmaster_server.app.loop import run
from stationmaster_server.app.root import App
from stationmaster_server.app.serving import serve
from stationmaster_server.config import load
from stationmaster_server.telemetry import logs


def shown(file: Path) -> datetime:
    """The time that the file shows."""
    at, since = file.read_text().split()
    time.sleep(max(float(since) - time.time(), 0))
    return datetime.fromisoformat(at)


async def main(file: Path) -> None:
    """Serve, with settings from the environment, until told to stop."""
    settings = load(None, {})
    logs.set_up(settings.telemetry.log_level, settings.telemetry.log_format)
    await serve(App(settings, clock=partial(shown, file)), lambda app: None)


if __name__ == "__main__":
    run(main(Path(sys.argv[1])))
