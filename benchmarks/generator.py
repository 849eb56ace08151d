"""The harness' side of a load process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.processes import Child


class LoadFailed(Exception):
    """A scenario ended with an error; the message is the load process' own."""


class Generator:
    """Runs scenarios of `worker.py`, one after another."""

    def __init__(self, child: Child) -> None:
        self._child = child

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    async def run(self, scenario: str, *, limit: float = 300.0, **parameters: Any) -> dict[str, Any]:
        """The figures of a scenario. Raises LoadFailed, or TimeoutError after `limit` seconds."""
        assert self._child.process.stdin is not None
        self._child.process.stdin.write(json.dumps({"scenario": scenario, **parameters}).encode() + b"\n")
        async with asyncio.timeout(limit):
            answer = json.loads(await self._child.line())
        if "error" in answer:
            raise LoadFailed(f"{scenario}: {answer['error']}")
        return dict(answer["figures"])


@asynccontextmanager
async def generator() -> AsyncIterator[Generator]:
    """A load process for as long as the block."""
    child = await Child.start("benchmarks.worker")
    try:
        yield Generator(child)
    finally:
        await child.stop()
