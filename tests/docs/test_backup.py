"""A backup of a server at work, restored into a database that an administrator prepared: scripts of `deploy/`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from uuid import uuid4

from stationmaster.v1 import agent_pb2
from stationmaster_client import Client
from stationmaster_server.db.embedded.cluster import SUPERUSER, Cluster

from tests.docs.commands import ROOT
from tests.fixtures.server import RunningServer, running, server_settings

DEPLOY = ROOT / "deploy"


async def shell(postgres: Cluster, *command: str, **more: str) -> str:
    """Run a script with the programs of PostgreSQL; what it printed last."""
    environment = {**os.environ, "PATH": f"{postgres.binaries}{os.pathsep}{os.environ['PATH']}", **more}
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode().strip().rpartition("\n")[2]


async def test_what_was_backed_up_is_restored_elsewhere(
    postgres: Cluster, server: RunningServer, database_url: str, tmp_path: Path
) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        session = (await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo"))).name
        assert (await client.sessions.ask(session, "what is 6*7")).text
        await client.files.upload(session, "notes.txt", b"kept")
        before = [message async for message in client.sessions.messages(session)]
        backup = await shell(
            postgres,
            *("sh", str(DEPLOY / "backup" / "backup.sh"), str(tmp_path / "backups")),
            DATABASE_URL=database_url,
            STATIONMASTER_DATA_FOLDER=str(server.settings.data_folder),
        )
    name = f"restored_{uuid4().hex}"
    prepare = tmp_path / "prepare.sql"
    prepare.write_text(
        (DEPLOY / "database" / "prepare.sql").read_text().replace("database stationmaster", f"database {name}")
    )
    administrator = postgres.url(user=SUPERUSER, database="postgres")
    once = ("psql", "-X", "-v", "ON_ERROR_STOP=1", "-d", administrator, "-f", str(prepare))
    for _ in range(2):  # what is there is not made again
        await shell(postgres, *once, STATIONMASTER_DB_PASSWORD="secret")
    restored, folder = postgres.url(database=name), tmp_path / "restored"
    await shell(
        postgres,
        *("sh", str(DEPLOY / "backup" / "restore.sh"), backup),
        DATABASE_URL=restored,
        STATIONMASTER_DATA_FOLDER=str(folder),
    )
    async with (
        running(server_settings(folder, restored)) as again,
        Client.connect(again.target, server.admin_key) as client,
    ):
        assert [message async for message in client.sessions.messages(session)] == before
        assert await client.files.read(session, "notes.txt") == b"kept"
    await shell(postgres, "psql", "-X", "-d", administrator, "-c", f"DROP DATABASE {name} WITH (FORCE)")
