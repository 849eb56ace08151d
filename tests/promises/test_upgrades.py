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
from stationmaster_server.db.embedded.cluster import SUPERUSER, Cluster

from tests.client.cli.program import Program
from tests.fixtures import forks
from tests.fixtures.server import ServerProcess, StartServer

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


async def test_a_copy_of_the_data_folder_of_a_stopped_server_is_a_backup_of_it(
    server_process: StartServer, data_folder: Path, tmp_path: Path
) -> None:
    server = await server_process()
    await work(server, tmp_path, "kept")
    assert await server.stop() == 0
    copy = data_folder.with_name("copy")
    # As the guide has it: the files keep their owner, who need not be the server's.
    copying = await asyncio.create_subprocess_exec("cp", "-a", str(data_folder), str(copy))
    assert await copying.wait() == 0
    again = await server_process(folder=copy)
    (found,) = await Program(tmp_path, again.target, again.admin_key).many([("sessions", "search", "6*7")])
    assert (found.code, "what is" in found.out) == (0, True), found
