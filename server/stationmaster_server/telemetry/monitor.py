"""Watches what the process uses: CPU, memory, files, connections, threads, and how late its event loop runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil

from stationmaster_server.telemetry.metrics import Metrics
from stationmaster_server.telemetry.reading import ReadingThread

_LAG_PROBE = 0.25


class ResourceMonitor:
    """Looks every `interval`; `async with` it. Also tells the newest figures, for status reports."""

    def __init__(
        self, metrics: Metrics, interval: timedelta, looked: Callable[[float], None] = lambda seconds: None
    ) -> None:
        """`looked` is told after each look how long it took."""
        self._looked = looked
        self._process = psutil.Process()
        self._thread = ReadingThread()
        self._interval = interval.total_seconds()
        self._figures: dict[str, float] = {}
        self._lag = 0.0
        self._worst_lag = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        metrics.read("process", "What this process uses, by resource.", lambda: dict(self._figures), label="resource")
        metrics.read(
            "event_loop_lag_seconds",
            "How late the event loop ran a timer, worst since the last look.",
            self._take_worst_lag,
        )
        metrics.read("up", "1 while this process runs.", lambda: 1.0)

    @property
    def figures(self) -> dict[str, float]:
        """The newest figures by resource; the unit stands in the name."""
        return {**self._figures, "event_loop_lag_seconds": self._lag}

    async def __aenter__(self) -> ResourceMonitor:
        await self._look()
        self._tasks = [asyncio.create_task(self._watch_loop()), asyncio.create_task(self._watch_process())]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.close()

    async def _watch_process(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            began = time.perf_counter()
            await self._look()
            self._looked(time.perf_counter() - began)

    async def _watch_loop(self) -> None:
        while True:
            due = time.perf_counter() + _LAG_PROBE
            await asyncio.sleep(_LAG_PROBE)
            self._lag = max(0.0, time.perf_counter() - due)
            self._worst_lag = max(self._worst_lag, self._lag)

    def _take_worst_lag(self) -> float:
        worst, self._worst_lag = self._worst_lag, 0.0
        return worst

    async def _look(self) -> None:
        figures = await self._thread.call(self._read)
        if figures:
            self._figures = {**figures, "tasks": float(len(asyncio.all_tasks()))}

    def _read(self) -> dict[str, float]:
        """In a thread; nothing where the system does not say."""
        with self._process.oneshot(), contextlib.suppress(psutil.Error, OSError):
            memory = self._process.memory_info()
            return {
                "cpu_percent": self._process.cpu_percent(),
                "memory_resident_bytes": float(memory.rss),
                "memory_virtual_bytes": float(memory.vms),
                "threads": float(threading.active_count()),
                "threads_native": float(self._process.num_threads()),
                **open_files(self._process),
            }
        return {}


def open_files(process: psutil.Process) -> dict[str, float]:
    """Count open files and, among them, sockets. Cheap on Linux only; elsewhere files alone."""
    if sys.platform != "linux":
        return {"open_files": float(process.num_fds())} if os.name == "posix" else {}
    sockets = 0
    with os.scandir("/proc/self/fd") as entries:
        names = [entry.name for entry in entries]
    for name in names:
        with contextlib.suppress(OSError):
            sockets += str(Path(f"/proc/self/fd/{name}").readlink()).startswith("socket:")
    return {"open_files": float(len(names)), "connections": float(sockets)}
