"""Floors and twins as processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.processes import Child, free_port


@dataclass(frozen=True, slots=True)
class Floor:
    """A floor that serves."""

    target: str
    pid: int


@asynccontextmanager
async def floor(module: str, *arguments: str) -> AsyncIterator[Floor]:
    """Serve `python -m module PORT arguments…` for as long as the block."""
    port = free_port()
    child = await Child.start(module, str(port), *arguments)
    try:
        yield Floor(f"127.0.0.1:{port}", child.pid)
    finally:
        await child.stop()
