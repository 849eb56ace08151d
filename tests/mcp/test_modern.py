"""Servers that speak the protocol of 2026, over each transport and in the process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from stationmaster_server.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import BuiltIn, Http, ResourceContent, Stdio, TextContent

from tests.mcp import modern
from tests.mcp.connected import Heard, connections, target, texts
from tests.mcp.everything import free_port, listens
from tests.waiting import until


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Connections]:
    async with connections(built_in={"modern": lambda tenant: modern.make()}) as made:
        yield made


@pytest_asyncio.fixture(params=["stdio", "http", "built in"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    """The server."""
    if request.param == "stdio":
        yield target(Stdio(sys.executable, (modern.PROGRAM, "stdio")))
    elif request.param == "built in":
        yield target(BuiltIn("modern"))
    else:
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable, modern.PROGRAM, f"http:{port}", stdout=-3, stderr=-3
        )
        try:
            await until(lambda: listens(port), seconds=60)
            yield target(Http(f"http://127.0.0.1:{port}/mcp"))
        finally:
            process.kill()
            await process.wait()


async def test_it_is_healthy_and_speaks_the_protocol_of_2026(pool: Connections, server: Target) -> None:
    check = await pool.check(server)
    assert (check.healthy, check.problem) == (True, "")
    assert check.info is not None
    assert check.info.protocol_version == "2026-07-28"
    assert (check.info.name, check.info.version, check.info.instructions) == ("modern", "7", "Be kind.")
    assert (check.tools, check.resources, check.prompts) == (6, 1, 1)


async def test_tools_resources_and_prompts_work(pool: Connections, server: Target) -> None:
    result = await pool.call(server, "add", {"a": 2, "b": 3})
    assert texts(result) == "5"
    assert result.structured == {"result": 5}
    [thing], _ = await pool.read(server, "data://thing")
    assert isinstance(thing, ResourceContent)
    assert thing.text == "a thing"
    filled = await pool.prompt(server, "greet", {"name": "Ada"})
    assert [message.content for message in filled.messages] == [TextContent("Greet Ada.")]
    with pytest.raises(InvalidArgument, match=r"arguments\.name: is required"):
        await pool.prompt(server, "greet", {})
    with pytest.raises(InvalidArgument, match=r"arguments\.a"):
        await pool.call(server, "add", {"a": "two", "b": 3})
    with pytest.raises((NotFound, InvalidArgument, FailedPrecondition)):
        await pool.read(server, "data://nothing")


async def test_a_tool_that_fails_says_so(pool: Connections, server: Target) -> None:
    result = await pool.call(server, "fail", {})
    assert result.is_error
    assert "fail" in texts(result)


async def test_progress_reaches_the_caller(pool: Connections, server: Target) -> None:
    heard = Heard()
    assert texts(await pool.call(server, "steps", {}, listener=heard)) == "done"
    assert heard.messages == ["step 1", "step 2", "step 3"]
    assert heard.fractions == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1]


async def test_a_call_that_is_given_up_ends_on_the_server_too(pool: Connections, server: Target) -> None:
    hanging = asyncio.create_task(pool.call(server, "hang", {"name": "one"}))

    async def hangs(name: str) -> bool:
        return name in texts(await pool.call(server, "hanging", {}))

    await until(lambda: hangs("one"))
    with pytest.raises(DeadlineExceeded):
        await pool.call(server, "hang", {"name": "two"}, timeout=timedelta(milliseconds=300))
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging

    async def nobody_hangs() -> bool:
        return texts(await pool.call(server, "hanging", {})) == ""

    await until(nobody_hangs)


async def test_a_new_tool_is_listed_after_the_server_told_of_it(pool: Connections, server: Target) -> None:
    tools = await pool.tools(server)
    assert await pool.tools(server) is tools
    await pool.call(server, "grow", {"name": "grown"})

    async def is_listed() -> bool:
        return "grown" in {tool.name for tool in await pool.tools(server)}

    await until(is_listed)
    assert texts(await pool.call(server, "grown", {})) == "grown"


async def test_a_built_in_server_that_is_not_there_is_told(pool: Connections) -> None:
    with pytest.raises(FailedPrecondition, match="there is no built-in server 'nothing'"):
        await pool.tools(target(BuiltIn("nothing")))
