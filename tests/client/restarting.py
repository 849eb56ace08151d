"""A server in a process of its own that is killed and comes back on the same port."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stationmaster_client import Client

from tests.fixtures.server import ServerProcess, StartServer, serving


class RestartingServer:
    """It, and what it was started with."""

    def __init__(self, start: StartServer, database_url: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self._start = start
        self._database_url = database_url
        self._settings = {"STATIONMASTER_SERVER__PORT": port, "STATIONMASTER_WORK__LEASE": "2s"}
        self._process: ServerProcess | None = None

    @property
    def process(self) -> ServerProcess:
        """The one that runs now."""
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start it and wait until it serves."""
        self._process = await self._start(database_url=self._database_url, environment=self._settings)

    async def kill_and_restart(self) -> None:
        """End it as a power cut does, and start another one."""
        await self.process.kill()
        await self.start()
        await serving(self.process)

    def client(self) -> Client:
        """A client of it."""
        return Client.connect(self.process.target, self.process.admin_key)


@asynccontextmanager
async def restarting_server(start: StartServer, database_url: str) -> AsyncIterator[RestartingServer]:
    """Start it."""
    server = RestartingServer(start, database_url)
    await server.start()
    yield server
