"""What the guide of upgrades says of servers that go on over a schema that grows, and of programs that are too old."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from stationmaster.v1 import agent_pb2
from stationmaster_client import Client
from stationmaster_server.db.embedded.binaries import find_binaries
from stationmaster_server.db.embedded.cluster import SUPERUSER, Cluster

from tests.client.cli.program import Program
from tests.fixtures import forks
from tests.fixtures.server import ServerProcess, StartServer

ROOT = Path(__file__).parents[2]
WORK = (
    ("agents", "create", "{n}-agent", "--model", "demo", "--tool", "math.*"),
    ("chat", "-a", "{n}-agent", "-m", "what is 6*7"),
    ("sessions", "search", "6*7"),
    ("sessions", "fork", "-"),
    ("prompts", "create", "{n}-prompt", "-t", "Hello {{{{ name }}}}."),
    ("prompts", "render", "{n}-prompt", "-p", "name=Ada"),
    (
        "tasks",
        "create",
        "{n}-task",
        "-k",
        "prompt",
        "-p",
        "model=demo",
        "-p",
        "prompt=what is 6*7",
        "-p",
        "tools[]=math.*",
    ),
    ("tasks", "run", "{n}-task", "--watch"),
    ("tasks", "update", "{n}-task", "--cron", "30 7 * * MON-FRI"),
    ("tasks", "search", "6*7"),
    ("keys", "create", "{n}-key", "--days", "1"),
    ("queue",),
    ("services", "list"),
    ("audit", "key"),
)


async def work(server: ServerProcess, folder: Path, name: str) -> None:
    """Something of every room, with the real command line."""
    commands = [tuple(word.format(n=name) for word in command) for command in WORK]
    results = await Program(folder, server.target, server.admin_key).many(commands)
    assert [result.code for result in results] == [0] * len(results), [result for result in results if result.code]


async def grow(database_url: str) -> int:
    """What a revision may do under servers that go on: a column more in each table, a table more, a revision more."""
    connection = await asyncpg.connect(database_url)
    tables = await connection.fetch(
        """SELECT oid::regclass::text AS name FROM pg_class
           WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"""
    )
    for table in tables:
        await connection.execute(f"ALTER TABLE {table['name']} ADD COLUMN of_a_later_revision text DEFAULT 'x'")
    await connection.execute("CREATE TABLE later (id uuid PRIMARY KEY)")
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()
    return len(tables)


async def run(command: str, database_url: str, folder: Path, **settings: str) -> tuple[int, str, str]:
    """A command of `stationmaster-server`, to its end."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("STATIONMASTER_")}
    ours = {"DATABASE_URL": database_url, "STATIONMASTER_DATA_FOLDER": str(folder), **settings}
    return await forks.run(forks.SERVER, (command,), variables | ours, seconds=60)


async def test_a_running_server_goes_on_over_a_schema_that_grows_and_no_old_one_starts_on_it(
    server_process: StartServer, database_url: str, tmp_path: Path
) -> None:
    server = await server_process(database_url=database_url)
    await work(server, tmp_path / "before", "before")
    async with Client.connect(server.target, server.admin_key) as client:
        session = await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo"))
        async with client.sessions.send(session.name, "/slow 10\n/say 100") as events:
            sequences: list[int] = []
            async for event in events:
                if not sequences:
                    assert await grow(database_url) > 50
                sequences.append(event.sequence)
    assert event.HasField("turn_finished")
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    await work(server, tmp_path / "after", "after")

    for command in ("serve", "migrate"):
        code, _, errors = await run(command, database_url, tmp_path / "second", STATIONMASTER_SERVER__PORT="0")
        assert (code, "9999, which is newer than this program: update it" in errors) == (1, True), errors
    code, told, _ = await run("doctor", database_url, tmp_path / "second", STATIONMASTER_SERVER__PORT="0")
    assert code == 1
    assert "newer than this program" in told
    assert await server.stop() == 0


@pytest.fixture
async def empty_url(postgres: Cluster) -> AsyncIterator[str]:
    """A database without anything."""
    administrator = await asyncpg.connect(postgres.url(user=SUPERUSER, database="postgres"))
    await administrator.execute("CREATE DATABASE not_migrated OWNER stationmaster")
    try:
        yield postgres.url(database="not_migrated")
    finally:
        await administrator.execute("DROP DATABASE not_migrated WITH (FORCE)")
        await administrator.close()


async def test_a_server_that_leaves_migrating_to_a_job_does_not_start_before_it_has_run(
    server_process: StartServer, empty_url: str, tmp_path: Path
) -> None:
    off = {"STATIONMASTER_DATABASE__MIGRATE": "false", "STATIONMASTER_SERVER__PORT": "0"}
    code, _, errors = await run("serve", empty_url, tmp_path / "early", **off)
    assert code == 1
    assert "run `stationmaster-server migrate`" in errors
    code, told, errors = await run("migrate", empty_url, tmp_path / "job", **off)
    assert (code, "is up to date" in told) == (0, True), errors
    server = await server_process(database_url=empty_url, environment=off)
    await work(server, tmp_path / "work", "first")


async def shell(script: str, folder: Path, **more: str) -> str:
    """Run a script with the programs of PostgreSQL; what it printed."""
    environment = {**os.environ, "PATH": f"{find_binaries()}{os.pathsep}{os.environ['PATH']}", **more}
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euc", script), env=environment, cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().strip()


async def finds_what_was_said(server: ServerProcess, folder: Path, key: str) -> bool:
    """Whether the conversation is there."""
    (found,) = await Program(folder, server.target, key).many([("sessions", "search", "6*7")])
    return found.code == 0 and "what is" in found.out


async def test_what_is_in_a_servers_own_database_can_be_copied_and_moved(
    server_process: StartServer, data_folder: Path, empty_url: str, tmp_path: Path
) -> None:
    server = await server_process()
    await work(server, tmp_path, "kept")
    key = server.admin_key
    guide = (ROOT / "docs" / "guides" / "deployment.md").read_text()
    moving = guide.partition("### From the server's own PostgreSQL")[2].partition("```\n")[2].partition("```")[0]
    moving = moving.replace("/var/lib/stationmaster", str(data_folder)).replace(
        "/srv/backups", str(tmp_path / "backups")
    )
    backup = await shell(moving, ROOT)
    assert await server.stop() == 0

    copy = data_folder.with_name("copy")
    await shell(f"cp -a {data_folder} {copy}", tmp_path)
    again = await server_process(folder=copy)
    assert await finds_what_was_said(again, tmp_path, key)
    assert await again.stop() == 0

    moved = data_folder.with_name("moved")
    variables = {"DATABASE_URL": empty_url, "STATIONMASTER_DATA_FOLDER": str(moved)}
    await shell(f"deploy/backup/restore.sh {backup}; cp -p {data_folder}/*.keys {moved}", ROOT, **variables)
    elsewhere = await server_process(database_url=empty_url, folder=moved)
    assert await finds_what_was_said(elsewhere, tmp_path, key)
    code, told, _ = await run("doctor", empty_url, moved, STATIONMASTER_SERVER__PORT="0", STATIONMASTER_ADMIN__PORT="0")
    assert code == 0, told
