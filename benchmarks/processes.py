"""Processes of the benchmark: ports, cores, memory, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port below those that the system gives to clients."""
    for _ in range(1000):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")


def all_cores() -> frozenset[int]:
    """The cores that this benchmark may use."""
    return frozenset(os.sched_getaffinity(0))


def pin(pid: int, cores: Iterable[int]) -> None:
    """Keep every thread of a process, and those it will start, on these cores."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def memory_bytes(pid: int) -> int:
    """What a process keeps in memory."""
    return int(psutil.Process(pid).memory_info().rss)


class Child:
    """A module of the benchmark as a process that says `ready` on its standard output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    @classmethod
    async def start(cls, module: str, *arguments: str) -> Child:
        """Start `python -m module arguments…` and wait until it is ready."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 << 20,
        )
        child = cls(process)
        try:
            async with asyncio.timeout(60):
                if (await child.line()).strip() != b"ready":
                    raise RuntimeError(f"{module} did not start")
        except BaseException:
            await child.stop()
            raise
        return child

    async def line(self) -> bytes:
        """What it says next. Raises RuntimeError when it ended."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a process of the benchmark ended with {await self.process.wait()}")
        return line

    async def stop(self) -> None:
        """End it, by its id."""
        await stop(self.process)


async def stop(process: asyncio.subprocess.Process, grace: float = 20.0) -> None:
    """End a process in order, or by force when it takes longer than `grace` seconds."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float) -> None:
    """Ask every few milliseconds until it holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.005)


def clean_environment(added: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without any setting of ours, and with `added`."""
    foreign = {"DATABASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STATIONMASTER_") and k not in foreign}
    return {**kept, **added}
