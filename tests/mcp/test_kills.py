"""SIGKILL under load: callers recover, and no call is executed twice unless its tool is idempotent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from stationmaster_server.errors import Aborted, Unavailable
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import Http, Stdio

from tests.mcp import misbehaving
from tests.mcp.connected import connections, target, texts
from tests.mcp.everything import free_port, listens
from tests.waiting import until

CALLERS = 8
Kill = Callable[[], Awaitable[None]]


@asynccontextmanager
async def stdio_server(executions: Path, idempotent: tuple[str, ...]) -> AsyncIterator[tuple[Target, Kill]]:
    """A server as a process of this one's, and what kills it."""
    command = (str(misbehaving.PROGRAM), "stdio", f"normal-{uuid4().hex}")
    server = target(Stdio(sys.executable, command, {"EXECUTIONS": str(executions)}), idempotent_tools=idempotent)

    async def kill() -> None:
        await until(running, seconds=60)
        for process in found():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def found() -> list[psutil.Process]:
        return [one for one in descendants() if command[2] in line_of(one) and "leash.py" not in " ".join(line_of(one))]

    async def running() -> bool:
        return bool(found())

    yield server, kill


def descendants() -> list[psutil.Process]:
    """Every process under this one."""
    return psutil.Process().children(recursive=True)


def line_of(process: psutil.Process) -> list[str]:
    """Its command line, while it runs."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@asynccontextmanager
async def http_server(executions: Path, idempotent: tuple[str, ...]) -> AsyncIterator[tuple[Target, Kill]]:
    """A server behind a port, and what kills it and starts it anew."""
    port = free_port()
    environment = {**os.environ, "EXECUTIONS": str(executions)}

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, misbehaving.PROGRAM, f"http:{port}", "normal", env=environment
        )
        await until(lambda: listens(port), seconds=60)
        return process

    process = await start()

    async def kill() -> None:
        nonlocal process
        process.kill()
        await process.wait()
        process = await start()

    try:
        yield target(Http(f"http://127.0.0.1:{port}/mcp"), idempotent_tools=idempotent), kill
    finally:
        process.kill()
        await process.wait()


async def load(pool: Connections, server: Target, outcomes: dict[str, str], stop: asyncio.Event) -> None:
    """Call, one call id after the other, and keep how each ended."""
    while not stop.is_set():
        call_id = uuid4().hex
        try:
            answer = texts(await pool.call(server, "count", {"id": call_id, "seconds": random.random() / 100}))
            outcomes[call_id] = "answered" if answer == call_id else f"wrong: {answer}"
        except Aborted:
            outcomes[call_id] = "uncertain"
        except Unavailable:
            outcomes[call_id] = "unavailable"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.long)])
@pytest.mark.parametrize("idempotent", [(), ("count",)], ids=["once", "idempotent"])
@pytest.mark.parametrize("make", [stdio_server, http_server], ids=["stdio", "http"])
async def test_calls_survive_kills(
    tmp_path: Path,
    make: Callable[[Path, tuple[str, ...]], contextlib.AbstractAsyncContextManager[tuple[Target, Kill]]],
    idempotent: tuple[str, ...],
    kills: int,
) -> None:
    executions = tmp_path / "executions"
    executions.touch()
    outcomes: dict[str, str] = {}
    stop = asyncio.Event()
    async with make(executions, idempotent) as (server, kill), connections() as pool:
        callers = [asyncio.create_task(load(pool, server, outcomes, stop)) for _ in range(CALLERS)]

        def answered() -> int:
            return list(outcomes.values()).count("answered")

        for _ in range(kills):
            before = answered()

            async def recovered(before: int = before) -> bool:
                return answered() > before

            await until(recovered, seconds=60)
            await kill()
        before = answered()
        await until(recovered, seconds=60)
        stop.set()
        await asyncio.gather(*callers)

    executed = Counter(executions.read_text().split())
    assert not {outcome for outcome in outcomes.values() if outcome.startswith("wrong")}
    assert all(executed[call_id] >= 1 for call_id, outcome in outcomes.items() if outcome == "answered")
    if idempotent:
        assert "uncertain" not in outcomes.values()
    else:
        assert max(executed.values()) == 1
        assert all(executed[call_id] == 0 for call_id, outcome in outcomes.items() if outcome == "unavailable")
        assert "uncertain" in outcomes.values()


HOLDER = """
import asyncio, sys
from uuid import uuid4
from stationmaster_server.config.mcp import McpSettings
from stationmaster_server.db.model import Tenant
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import Level, McpServer, Stdio

async def main():
    pool = Connections(McpSettings(), built_in={}, http=None)
    tenant = Tenant(uuid4(), uuid4())
    for n in range(3):
        server = McpServer(f"s{n}", Level.USER, Stdio(sys.executable, (sys.argv[1], "stdio", "normal")), uid=uuid4())
        await pool.tools(Target(tenant, server))
    print("ready", flush=True)
    await asyncio.sleep(10_000)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
async def test_no_process_of_a_server_outlives_the_one_that_connected(how: signal.Signals) -> None:
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, misbehaving.PROGRAM, stdout=-1)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"ready\n"
    family = psutil.Process(holder.pid).children(recursive=True)
    assert len(family) == 6  # three leashes, three servers
    holder.send_signal(how)
    await holder.wait()
    await until(lambda: all_gone(family), seconds=60)


async def test_no_process_of_a_server_outlives_close() -> None:
    before = set(descendants())
    async with connections() as pool:
        for mode in ("normal", "no_ping"):
            server = target(Stdio(sys.executable, (str(misbehaving.PROGRAM), "stdio", mode)))
            await pool.tools(server)
        calling = asyncio.create_task(pool.call(server, "hang", {}))
        await asyncio.sleep(0)
        family = set(descendants()) - before
        assert len(family) == 4
    assert not {process for process in family if process.is_running()}
    with pytest.raises((Aborted, Unavailable)):
        await calling


async def all_gone(family: list[psutil.Process]) -> bool:
    """Whether none of them runs."""
    return not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
