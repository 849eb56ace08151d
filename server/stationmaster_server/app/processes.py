"""`--processes N`: children that share the port; the parent keeps them alive and owns the embedded PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from stationmaster_server.app.database import connect, database_url
from stationmaster_server.app.local import claim_ports, make_data_folder, published
from stationmaster_server.config import Settings, StartupError
from stationmaster_server.rpc.port import reserve

_log = structlog.get_logger(__name__)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_HEALTHY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the settings came from, so that a child reads the same."""

    config_file: Path | None
    overrides: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """What the parent can tell once all children serve."""

    port: int
    database_url: str
    pids: tuple[int, ...]
    admin_ports: tuple[int, ...]


async def supervise(settings: Settings, origin: Origin, ready: Callable[[Family], None]) -> None:
    """Run the children until SIGTERM or SIGINT. One that ends by itself is started again, after growing pauses."""
    make_data_folder(settings.data_folder)
    claim_ports(settings)
    async with database_url(settings) as url:
        database = await connect(url, settings.database)  # migrates once, before the children look
        await database.close()
        with ExitStack() as stack:
            holder = stack.enter_context(reserve(settings.server.host, settings.server.port))
            port = int(holder.getsockname()[1])
            children = [Child(_orders(settings, origin, url, port, n), n) for n in range(settings.server.processes)]

            def all_serve() -> None:
                family = _family(port, url, children)
                stack.enter_context(published(settings, port, family.admin_ports))
                ready(family)

            await _keep_all(children, all_serve)


def _family(port: int, url: str, children: list[Child]) -> Family:
    return Family(port, url, tuple(c.pid for c in children), tuple(c.admin_port for c in children))


def _orders(settings: Settings, origin: Origin, url: str, port: int, index: int) -> dict[str, Any]:
    """What a child is told: the parent's settings, but its database and port, and an admin port of the child's own."""
    overrides: dict[str, Any] = {name: dict(v) if isinstance(v, Mapping) else v for name, v in origin.overrides.items()}
    for group, name, value in (
        ("database", "url", url),
        ("database", "migrate", False),
        ("server", "port", port),
        ("server", "processes", settings.server.processes),
        ("admin", "port", settings.admin.port + index if settings.admin.port else 0),
    ):
        overrides.setdefault(group, {})[name] = value
    overrides["data_folder"] = str(settings.data_folder)
    return {"config": str(origin.config_file) if origin.config_file else None, "overrides": overrides}


async def _keep_all(children: list[Child], ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told_to_stop(number: int) -> None:
        stop.set()
        for child in children:
            child.send(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop, number)
    try:
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(child.keep(stop))
            for child in children:
                await _first(child.ready, stop)
            if not stop.is_set():
                ready()
    except* StartupError as faults:
        raise _first_of(faults) from None
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _first_of(faults: BaseExceptionGroup[StartupError]) -> StartupError:
    fault = faults.exceptions[0]
    return fault if isinstance(fault, StartupError) else _first_of(fault)


class Child:
    """One server process, started as often as it takes."""

    def __init__(self, orders: Mapping[str, Any], index: int) -> None:
        self._orders = orders
        self._index = index
        self._process: Process | None = None
        self._fault: StartupError | None = None
        self.ready = asyncio.Event()
        self.pid = 0
        self.admin_port = 0

    def send(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def keep(self, stop: asyncio.Event) -> None:
        """Start it, and again when it ends by itself. Raises StartupError when it never came to serve."""
        pause = _FIRST_PAUSE
        while not stop.is_set():
            began = time.monotonic()
            code = await self._run()
            if stop.is_set():
                return
            if not self.ready.is_set():
                raise self._fault or StartupError(f"server process {self._index} ended with code {code} at its start")
            if time.monotonic() - began > _HEALTHY_AFTER:
                pause = _FIRST_PAUSE
            _log.error("a server process ended; starting it again", process=self._index, code=code, pause_seconds=pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _run(self) -> int:
        """Run the process to its end, or to ours; return its exit code."""
        command = (sys.executable, "-m", "stationmaster_server.app.child")
        # A session of its own: Ctrl-C is for the parent, which forwards it once.
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)
        self._process, self.pid = process, process.pid
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the child has no pipes")
            process.stdin.write(json.dumps(self._orders).encode() + b"\n")
            async for line in process.stdout:
                self._hear(json.loads(line))
            return await process.wait()
        finally:
            if process.returncode is None:  # the parent ends: so does the child, in order
                process.terminate()
                await process.wait()

    def _hear(self, message: Mapping[str, Any]) -> None:
        if facts := message.get("ready"):
            self.admin_port = facts["admin_port"]
            self.ready.set()
        elif fault := message.get("fault"):
            self._fault = StartupError(fault)
            self._fault.exit_code = message["exit_code"]
