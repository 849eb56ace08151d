"""Runs one server process until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable

import structlog

from stationmaster_server.app.root import App

_log = structlog.get_logger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def serve(app: App, ready: Callable[[App], None], stop: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; call `ready` once calls are answered. The second signal forces the end."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()

    def told_to_stop(number: int) -> None:
        if stop.is_set():
            app.force_stop()
            return
        _log.info("stopping", signal=signal.Signals(number).name)
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, told_to_stop, number)
    starting = asyncio.ensure_future(app.__aenter__())
    waiting = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():  # told to stop while still starting
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        await starting
        # What the start has made stays until the end; looking at all of it again and again would hold up every call.
        gc.collect()
        gc.freeze()
        try:
            ready(app)
            await waiting
        finally:  # also when there is nobody to tell that it is ready
            await app.__aexit__(None, None, None)
    finally:
        waiting.cancel()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
