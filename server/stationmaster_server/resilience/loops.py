"""What goes on in the background for as long as the server does: no error of one round ends the rounds to come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Never

import structlog

from stationmaster_server.errors import StationmasterError

_log = structlog.get_logger(__name__)


async def attempt(task: str, do: Callable[[], Awaitable[object]]) -> None:
    """One round of a background task: whatever it raises is logged, and its loop goes on."""
    try:
        await do()
    except StationmasterError as error:
        _log.warning("a background task could not be done; it is tried again", task=task, error=str(error))
    except Exception:  # noqa: BLE001 - nobody awaits a loop that has ended: the error would be silent, and for ever
        _log.exception("a background task failed; it is tried again", task=task)


async def repeat(task: str, every: timedelta, do: Callable[[], Awaitable[object]]) -> Never:
    """Do it now and after every pause of `every`, until cancelled."""
    while True:
        await attempt(task, do)
        await asyncio.sleep(every.total_seconds())
