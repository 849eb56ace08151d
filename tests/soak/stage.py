"""A PostgreSQL and two servers on it, at addresses that stay the same whatever is killed and started again."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from stationmaster_client import Client
from stationmaster_server.db.embedded.cluster import SUPERUSER
from stationmaster_server.db.embedded.server import Membership
from stationmaster_server.db.embedded.supervisor import find_postmaster

from tests.fixtures.server import ServerProcess, StartServer
from tests.waiting import until

SERVERS = 2


@dataclass
class Stage:
    """`environment` is that of every server. The first folder has the key."""

    start_server: StartServer
    member: Membership
    folder: Path
    environment: dict[str, str]
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(SERVERS)])
    servers: list[ServerProcess] = field(default_factory=list)
    kills: int = 0
    restarts: int = 0

    @property
    def superuser_url(self) -> str:
        """Where the whole database is seen."""
        return self.member.cluster.url(user=SUPERUSER)

    def client(self, number: int) -> Client:
        """A client of one of the servers; it outlives them."""
        return Client.connect(f"127.0.0.1:{self.ports[number]}", self.servers[0].admin_key)

    async def start(self, number: int) -> None:
        """Start a server, for the first time or again."""
        server = await self.start_server(
            database_url=self.member.cluster.url(),
            folder=self.folder / f"server-{number}",
            environment={**self.environment, "STATIONMASTER_SERVER__PORT": str(self.ports[number])},
        )
        self.servers[number : number + 1] = [server]

    async def kill(self, number: int) -> None:
        """SIGKILL a server, and start it again. It has to be alive: one that ended by itself is no server to kill."""
        victim = self.servers[number]
        self.check_alive(victim)
        await victim.kill()
        assert victim.process.returncode == -signal.SIGKILL
        self.kills += 1
        await self.start(number)

    async def restart_database(self) -> None:
        """SIGKILL PostgreSQL, which its supervisor starts again."""
        found = find_postmaster(self.folder / "database" / "postgres" / "data")
        assert found is not None
        os.kill(found[0], signal.SIGKILL)
        self.restarts += 1

        async def anew() -> bool:
            postgres = find_postmaster(self.folder / "database" / "postgres" / "data")
            return postgres is not None and postgres != found and await self._answers()

        await until(anew, seconds=60)

    def check_alive(self, *servers: ServerProcess) -> None:
        """No server ended that nobody killed; all of them unless some are given."""
        for server in servers or self.servers:
            assert server.process.returncode is None, f"{server.process.returncode}:\n{server.text[-4000:]}"

    async def ask(self, sql: str, *args: object) -> Any:
        """One value, from the database itself."""
        connection = await asyncpg.connect(self.superuser_url)
        try:
            return await connection.fetchval(sql, *args)
        finally:
            await connection.close()

    async def _answers(self) -> bool:
        try:
            return bool(await self.ask("SELECT true"))
        except (OSError, asyncpg.PostgresError):
            return False


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
