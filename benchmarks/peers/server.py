"""A peer's server: started and stopped as its users do it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.postgres import temporary_folder
from benchmarks.processes import clean_environment, free_port, memory_bytes, stop, until
from benchmarks.skip import Skipped


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a peer is run: files to write into its folder, its command (`{port}`, `{folder}`), a path that it answers."""

    name: str
    version: str
    files: Mapping[str, str]
    program: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    ready_path: str


class PeerServer:
    """One process of a peer."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe = recipe
        self._folder = folder
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        for name, text in recipe.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._port}"

    def memory_bytes(self) -> int:
        """What it keeps in memory."""
        assert self._process is not None
        return memory_bytes(self._process.pid)

    async def start(self) -> float:
        """Start it; seconds until it answers. Raises Skipped when it does not."""
        arguments = [part.format(port=self._port, folder=self._folder) for part in self.recipe.arguments]
        began = time.perf_counter()
        with (self._folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(str(self.recipe.program), *arguments),
                cwd=self._folder,
                env=clean_environment(self.recipe.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            await until(self._ready, seconds=60)
        except TimeoutError:
            raise Skipped(f"{self.recipe.name} was not ready within a minute") from None
        return time.perf_counter() - began

    async def _ready(self) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise Skipped(f"{self.recipe.name} ended while it started: {self._last_line()}")
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.write(
            f"GET {self.recipe.ready_path} HTTP/1.1\r\nHost: {self.target}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
        writer.close()
        return b" 200 " in answer.partition(b"\r\n")[0]

    def _last_line(self) -> str:
        lines = (self._folder / "server.log").read_text(errors="replace").splitlines()
        return lines[-1][:200] if lines else "it said nothing"

    async def stop(self) -> None:
        """End it."""
        if self._process is not None:
            await stop(self._process, grace=5)


@asynccontextmanager
async def peer_server(recipe: Recipe, *, started: bool = True) -> AsyncIterator[PeerServer]:
    """A server of a peer for as long as the block, in a folder that goes away afterwards."""
    with temporary_folder(recipe.name) as folder:
        server = PeerServer(recipe, folder)
        try:
            if started:
                await server.start()
            yield server
        finally:
            await server.stop()
