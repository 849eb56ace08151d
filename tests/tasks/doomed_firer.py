"""Begins to fire in a process of its own and waits to be killed: `doomed_firer.py DATABASE_URL TIME`.

It stops when the executions are inserted and nothing is committed.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from typing import Any

from stationmaster_server.tasks import schedule_store

from tests.tasks.firers import Clock, firer


async def _wait_for_the_end(*args: Any, **kwargs: Any) -> None:
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def main(url: str, time: str) -> None:
    """Fire."""
    schedule_store.settle = _wait_for_the_end
    async with firer(url, Clock(datetime.fromisoformat(time))) as server:
        await server.firing.fire_due()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
