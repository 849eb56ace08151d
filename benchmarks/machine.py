"""Where a run took place."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import ROOT, all_cores

_LIBRARIES = ("grpcio", "uvloop", "asyncpg", "protobuf", "sqlalchemy")


def describe() -> dict[str, Any]:
    """The machine, without its name."""
    return {
        "cpu": _cpu(),
        "cores": len(all_cores()),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "load_average": load_average(),
    }


def load_average() -> list[float]:
    """How busy the machine was in the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def commit() -> str:
    """The commit that is measured, with `-dirty` when the server's files differ from it."""
    head = _git("rev-parse", "HEAD") or "unknown"
    return f"{head}-dirty" if _git("status", "--porcelain", "--", "server", "generated") else head


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git(*arguments: str) -> str:
    done = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
