"""A real `stationmaster-server` with a PostgreSQL of its own, in a folder that goes away afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from stationmaster_client.client import Client
from stationmaster_client.connection import Connection
from stationmaster_client.errors import StationmasterError

START_LIMIT_SECONDS = 60.0
STOP_LIMIT_SECONDS = 15.0
LOOK_EVERY_SECONDS = 0.05


class DemoFailure(Exception):
    """The demo cannot go on, or something is not as promised; the message says what."""


class Server:
    """The server's process: started, killed and started again on the same data folder and port."""

    def __init__(self, folder: Path, model_folder: Path | None) -> None:
        self.folder = folder
        self.model_folder = model_folder
        """The files of the model that finds things by meaning, if they are there."""
        self.port = _free_port()
        self._log = folder / "demo-server.log"
        self._process: asyncio.subprocess.Process | None = None
        self.killed: int | None = None
        """What the process that was killed ended with."""

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None  # noqa: S101 - asked only between start and stop
        return self._process.pid

    @property
    def connection(self) -> Connection:
        """How to reach it, with the key that it made for its administrator."""
        return Connection(f"127.0.0.1:{self.port}", (self.folder / "admin.key").read_text().strip())

    async def start(self) -> float:
        """Start it and wait until it is SERVING; returns the seconds this took. Raises DemoFailure."""
        if self._process is not None:
            self.killed = await self._ended(self._process)
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "stationmaster_server", "serve"),
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the server in order.
            )
        async with Client(Connection(f"127.0.0.1:{self.port}"), timeout=timedelta(seconds=2), attempts=1) as client:
            while not await self._serving(client):
                if time.monotonic() - began > START_LIMIT_SECONDS:
                    raise DemoFailure(f"the server was not SERVING within {START_LIMIT_SECONDS:.0f} s\n{self._tail()}")
                await asyncio.sleep(LOOK_EVERY_SECONDS)
        return time.monotonic() - began

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        try:
            async with asyncio.timeout(STOP_LIMIT_SECONDS):
                return await process.wait()
        except TimeoutError:
            raise DemoFailure(f"the server that was killed still runs after {STOP_LIMIT_SECONDS:.0f} s") from None

    async def _serving(self, client: Client) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise DemoFailure(f"the server ended while it started\n{self._tail()}")
        with contextlib.suppress(StationmasterError):
            return await client.health.check() == "SERVING"
        return False

    def kill(self) -> None:
        """End it at once, as a power cut does: no handler runs, nothing is flushed."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def stop(self) -> None:
        """End it in order, and PostgreSQL with it."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_LIMIT_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self.kill()
                await self._process.wait()
        # PostgreSQL's supervisor stops it once no server is left, however that ended.
        for _ in range(int(STOP_LIMIT_SECONDS / LOOK_EVERY_SECONDS)):
            if not any(self.folder.rglob("postmaster.pid")):
                return
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    def _environment(self) -> dict[str, str]:
        """The caller's environment without its settings of Stationmaster; those of the demo instead."""
        ours = {
            "STATIONMASTER_DATA_FOLDER": str(self.folder),
            "STATIONMASTER_SERVER__PORT": str(self.port),
            "STATIONMASTER_ADMIN__ENABLED": "false",
            "STATIONMASTER_WORK__LEASE": "2s",
        }
        if self.model_folder is not None:
            ours["STATIONMASTER_EMBEDDING__MODEL_FOLDER"] = str(self.model_folder.resolve())
        foreign = {"DATABASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"}
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("STATIONMASTER_") and name not in foreign
        }
        return inherited | ours

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(["the end of its log:", *(f"  {line}" for line in lines)])


@asynccontextmanager
async def temporary_server(model_folder: Path | None) -> AsyncIterator[Server]:
    """A server that is not started yet; on every way out its processes end and its folder goes."""
    if importlib.util.find_spec("stationmaster_server") is None:
        raise DemoFailure("the server is not installed: pip install 'stationmaster[server]'")
    folder = _fresh_folder()
    server = Server(folder, model_folder)
    try:
        yield server
    finally:
        # Shielded: a Ctrl-C on the way out must not leave processes behind.
        await asyncio.shield(server.stop())
        shutil.rmtree(folder, ignore_errors=True)


def _fresh_folder() -> Path:
    """A new folder below the system's temporary one. As root, PostgreSQL's uid must be able to pass through."""
    folder = Path(tempfile.mkdtemp(prefix="stationmaster-demo-"))
    folder.chmod(0o755)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
