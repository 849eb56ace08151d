"""What servers and database use meanwhile, and whether it grows."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from statistics import median

import httpx2

from tests.fixtures.server import ServerProcess
from tests.soak.stage import Stage

MIB = 1024 * 1024
_LOOK_SECONDS = 1.0
_WARM_UP_SHARE = 0.25
_NOISE = {"memory MiB": 16.0, "files": 24.0, "threads": 8.0, "connections": 24.0, "tasks": 200.0}
"""What each may differ by from one quarter of a run to the last."""


# By the server itself: nobody else looks into its process.
_TOLD = re.compile(r'^stationmaster_process\{resource="(\w+)"\} (\S+)$', re.MULTILINE)
_RESOURCES = {
    "memory MiB": ("memory_resident_bytes", MIB),
    "files": ("open_files", 1),
    "connections": ("connections", 1),
    "threads": ("threads_native", 1),
    "tasks": ("tasks", 1),
}


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
        told = {name: float(value) for name, value in _TOLD.findall(text)}
        return {name: told[resource] / unit for name, (resource, unit) in _RESOURCES.items()}
    except (httpx2.HTTPError, OSError, KeyError):
        return {}
