"""What goes on in the background for as long as the server does: no error of one round ends the rounds to come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Never

import structlog

from stationmaster_server.errors import StationmasterError
from stationmaster_server.resilience.pulse import Pulse

_log = structlog.get_logger(__name__)


async def attempt(task: str, do: Callable[[], Awaitable[object]], pulse: Pulse | None = None) -> None:
    """One round of a background task: whatever it raises is logged, and its loop goes on. `pulse` counts it."""
    try:
        with contextlib.nullcontext() if pulse is None else pulse.round():
            await do()
    except StationmasterError as error:
        _log.warning("a background task could not be done; it is tried again", task=task, error=str(error))
    except Exception:  # noqa: BLE001 - nobody awaits a loop that has ended: the error would be silent, and for ever
        _log.exception("a background task failed; it is tried again", task=task)


async def repeat(task: str, every: timedelta, do: Callable[[], Awaitable[object]], pulse: Pulse | None = None) -> Never:
    """Do it now and after every pause of `every`, until cancelled. `pulse` counts the rounds."""
    while True:
        await attempt(task, do, pulse)
        await asyncio.sleep(every.total_seconds())
