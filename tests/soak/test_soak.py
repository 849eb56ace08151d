"""Mixed load on two servers while servers and PostgreSQL are killed: nothing is lost, nothing grows.

`make soak` runs it for 20 minutes; continuous integration for as long as it has time.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from stationmaster_client import Client
from stationmaster_client.transparency import VerifierKey, verify_bundle
from stationmaster_server.db.migrate import migrate

from tests.crash import fenced, ledger
from tests.crash.fleet import install
from tests.db.test_embedded import joined
from tests.fixtures.server import StartServer
from tests.soak.figures import Figures
from tests.soak.loads import Loads
from tests.soak.stage import SERVERS, Stage
from tests.waiting import until

LENGTH_SECONDS = float(os.environ.get("SOAK_SECONDS", "24"))
EVERY_SECONDS = min(30.0, LENGTH_SECONDS / 6)
SETTLING_SECONDS = 120.0
_KILLS_AT_LEAST = 3
"""Of the first server, of PostgreSQL, of the second server."""


@pytest_asyncio.fixture
async def stage(server_process: StartServer, data_folder: Path) -> AsyncIterator[Stage]:
    """Two servers, with the kind of task that tells of its effects."""
    folder = data_folder.parent
    (folder / "database").mkdir()
    with joined(folder / "database") as member:
        await migrate(member.cluster.url())
        environment = install(folder / "plugin", Path(fenced.__file__), "Fenced")
        environment |= {"STATIONMASTER_WORK__LEASE": "4s", "STATIONMASTER_TELEMETRY__LOG_LEVEL": "warning"}
        made = Stage(server_process, member, folder, environment)
        environment["FENCED_URL"] = made.superuser_url
        connection = await asyncpg.connect(made.superuser_url)
        await connection.execute(fenced.SCHEMA)
        await connection.close()
        for number in range(SERVERS):
            await made.start(number)
        yield made
        for server in made.servers:
            await server.stop()


async def disturb(stage: Stage, loads: list[asyncio.Task[None]]) -> None:
    """Every so often kill the second server or PostgreSQL by turns, each at least once, and once the first server."""
    loop = asyncio.get_running_loop()
    began, number = loop.time(), 0
    while number < _KILLS_AT_LEAST or loop.time() + EVERY_SECONDS < began + LENGTH_SECONDS:
        done, _ = await asyncio.wait(loads, timeout=EVERY_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        number += 1
        if number % 2:
            await stage.kill(0 if number == 1 else 1)  # the first one lives on from there: it must not grow
        else:
            await stage.restart_database()


@pytest.mark.timeout(LENGTH_SECONDS + 2 * SETTLING_SECONDS)
async def test_nothing_is_lost_and_nothing_grows_under_load_and_kills(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stop, figures = asyncio.Event(), Figures()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(stage.client(number)) for number in range(SERVERS)]
        loads = Loads(clients, stop)
        callers = [
            asyncio.create_task(load(clients[number % SERVERS]), name=load.__name__)
            for number, load in enumerate(loads.all())
        ]
        watching = asyncio.create_task(figures.watch(stage))
        await disturb(stage, callers)
        await loads.all_come_round()
        stop.set()
        async with asyncio.timeout(SETTLING_SECONDS):
            await asyncio.gather(*callers)
        watching.cancel()
        stage.check_alive()
        messages = await loads.check_sessions()
        await check_executions(stage, loads)
        await check_trail(stage, loads)
        await check_bundle(clients[0], loads)
    turns, executions = await taken_up(stage)
    killed = f"{stage.kills} servers and {stage.restarts} databases killed"
    assert turns > 0, "no kill met a turn"
    assert executions > 0, "no kill met an execution"
    again = f"{turns} turns and {executions} executions taken up again"
    kept = f"{messages} messages, {len(loads.executions)} executions, {len(loads.recorded)} events"
    with capsys.disabled():
        sys.stdout.write(
            f"\n  {LENGTH_SECONDS:.0f} s: {killed}; {loads.calls} calls; {again}; none lost of {kept}\n  {figures}\n"
        )
    assert figures.grown() == []


async def taken_up(stage: Stage) -> tuple[int, int]:
    """How many turns and executions were taken up again after the server that ran them was killed."""
    of_a_kind = """SELECT count(*) FROM work_items
                   WHERE kind LIKE $1 AND jsonb_path_exists(errors, '$[*] ? (@.reason == "LEASE_EXPIRED")')"""
    return await stage.ask(of_a_kind, "turn"), await stage.ask(of_a_kind, "task.%")


async def check_executions(stage: Stage, loads: Loads) -> None:
    """Each ended once, as it should."""
    connection = await asyncpg.connect(stage.superuser_url)
    try:

        async def done() -> bool:
            return await ledger.all_is_done(connection)

        await until(done, seconds=SETTLING_SECONDS)
    finally:
        await connection.close()
    states = await ledger.check(stage.superuser_url)
    assert {f"executions/{execution}" for execution in states} == set(loads.executions)
    assert set(states.values()) == {"SUCCEEDED"}


async def check_trail(stage: Stage, loads: Loads) -> None:
    """Each event is there once, and has its place in the tree once."""
    connection = await asyncpg.connect(stage.superuser_url)
    try:
        assert loads.recorded
        rows = await connection.fetch("SELECT resource FROM audit_events WHERE action = 'custom.soak'")
        assert sorted(row["resource"] for row in rows) == sorted(loads.recorded)

        async def placed() -> bool:
            return bool(await connection.fetchval("SELECT count(*) = 0 FROM audit_queue"))

        await until(placed, seconds=SETTLING_SECONDS)
        sql = """SELECT count(*) FROM audit_events e
                 FULL JOIN audit_positions p ON p.organization_id = e.organization_id AND p.event_id = e.id
                 WHERE e.id IS NULL OR p.event_id IS NULL"""
        assert await connection.fetchval(sql) == 0
    finally:
        await connection.close()


async def check_bundle(client: Client, loads: Loads) -> None:
    """The whole trail verifies offline, with the public key alone, and has each event once."""
    keys = [VerifierKey.parse(key.verifier_key) for key in (await client.audit.checkpoint()).keys]

    async def whole() -> bool:
        text = "".join([line async for line in client.audit.export()])
        assert verify_bundle(io.BytesIO(text.encode()), keys).events > 0
        found = re.findall(r"soak/[0-9a-f-]{36}", text)
        assert len(found) == len(set(found))
        return set(found) == set(loads.recorded)

    await until(whole)  # the newest checkpoint may be a second behind
