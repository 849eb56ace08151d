"""What servers and database use meanwhile, and whether it grows."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from statistics import median

import httpx2
import psutil

from tests.fixtures.server import ServerProcess
from tests.soak.stage import Stage

MIB = 1024 * 1024
_LOOK_SECONDS = 1.0
_WARM_UP_SHARE = 0.25
_NOISE = {"memory MiB": 16.0, "files": 24.0, "threads": 8.0, "connections": 24.0, "tasks": 200.0}
"""What each may differ by from one quarter of a run to the last."""


_TOLD = re.compile(r'^stationmaster_process\{resource="(tasks|threads_native)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Look:
    """What a server process used at a moment."""

    pid: int
    used: dict[str, float]


@dataclass
class Figures:
    """Looks at the server that lives the longest."""

    looks: list[Look] = field(default_factory=list)

    async def watch(self, stage: Stage) -> None:
        """Look every second, until it is cancelled."""
        while True:
            for server in stage.servers:
                if used := await _used(server):
                    self.looks.append(Look(server.pid, used))
            await asyncio.sleep(_LOOK_SECONDS)

    def growth(self) -> dict[str, tuple[float, float]]:
        """Of the process that was seen the most: medians of the second and of the last quarter of its looks."""
        pids = [look.pid for look in self.looks]
        pid = max(set(pids), key=pids.count)
        looks = [look for look in self.looks if look.pid == pid]
        first = looks[int(len(looks) * _WARM_UP_SHARE) : len(looks) // 2]
        last = looks[len(looks) * 3 // 4 :]
        return {
            name: (median(look.used[name] for look in first), median(look.used[name] for look in last))
            for name in looks[0].used
        }

    def __str__(self) -> str:
        return "; ".join(f"{name} {before:.0f} -> {after:.0f}" for name, (before, after) in self.growth().items())

    def grown(self) -> list[str]:
        """What grew by more than a tenth and its noise."""
        return [
            f"{name}: {before:.0f} -> {after:.0f}"
            for name, (before, after) in self.growth().items()
            if after > before * 1.1 + _NOISE[name]
        ]


async def _used(server: ServerProcess) -> dict[str, float]:
    """Nothing of a server that is being killed."""
    try:
        async with httpx2.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{server.admin_port}/metrics")).text
        process = psutil.Process(server.pid)
        with process.oneshot():
            memory, connections = process.memory_info().rss / MIB, len(process.net_connections())
            used = {"memory MiB": memory, "files": process.num_fds(), "connections": connections}
    except (httpx2.HTTPError, psutil.Error, OSError, ValueError, KeyError):
        return {}
    told = {name: float(value) for name, value in _TOLD.findall(text)}
    return {**used, "threads": told["threads_native"], "tasks": told["tasks"]}
