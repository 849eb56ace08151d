"""Sessions with MCP servers: connections of their own, that any server process can take up and end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import psutil
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import mcp_pb2 as pb

from tests.contract.world import code_of, reason_of
from tests.fixtures.server import RunningServer, running, server_settings
from tests.mcp.served import (
    ORGANIZATION,
    calling,
    connected,
    member_key,
    open_session,
    recorded,
    refusal,
    register,
    trail,
    unruly,
    update,
)
from tests.waiting import until

PATIENCE_SECONDS = 90
SOON = Duration(seconds=1)


@pytest_asyncio.fixture
async def stub(server: RunningServer) -> AsyncIterator[Any]:
    async with connected(server) as made:
        yield made


def processes(marker: Path) -> Callable[[], list[psutil.Process]]:
    """The processes of a server that has this path in its environment; not those of tests beside this one."""

    def found() -> list[psutil.Process]:
        return [one for one in psutil.Process().children(recursive=True) if _has(one, marker)]

    return found


def _has(process: psutil.Process, marker: Path) -> bool:
    try:
        return process.environ().get("RECORD") == str(marker) and "misbehaving.py" in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def none_left(found: Callable[[], list[psutil.Process]]) -> Callable[[], Awaitable[bool]]:
    async def none_is_left() -> bool:
        return not found()

    return none_is_left


async def get(stub: Any, session: pb.McpSession) -> pb.McpSession:
    found: pb.McpSession = await stub.GetMcpSession(pb.GetMcpSessionRequest(name=session.name))
    return found


async def close(stub: Any, session: pb.McpSession, request_id: str = "") -> pb.McpSession:
    request = pb.CloseMcpSessionRequest(name=session.name, request_id=request_id)
    closed: pb.McpSession = await stub.CloseMcpSession(request)
    return closed


async def test_a_session_has_a_connection_of_its_own_which_its_end_closes(stub: Any, tmp_path: Path) -> None:
    record = tmp_path / "record"
    await register(stub, stdio=unruly(RECORD=str(record)))
    await stub.CallTool(calling("ok"))
    found = processes(record)
    before = {one.pid for one in found()}
    sessions = [await open_session(stub) for _ in range(2)]
    assert len(recorded(record, "initialize")) == 3
    for session in sessions:
        assert (await stub.CallTool(calling("ok", session.name))).content[0].text == "fine"
        tools = await stub.ListTools(pb.ListToolsRequest(parent=session.name, filter="ok"))
        assert [tool.qualified_name for tool in tools.tools] == ["orderly.ok"]
    assert len(recorded(record, "initialize")) == 3
    for session in sessions:
        closed = await close(stub, session)
        assert (closed.state, closed.state_reason) == (pb.MCP_SESSION_STATE_CLOSED, "closed by its user")
    assert (await stub.CallTool(calling("ok"))).content[0].text == "fine"

    async def only_the_shared_one() -> bool:
        return {one.pid for one in found()} == before

    assert before
    await until(only_the_shared_one)


async def test_resources_and_prompts_are_used_over_a_session(stub: Any) -> None:
    await register(stub)
    parent = (await open_session(stub)).name
    resources = await stub.ListResources(pb.ListResourcesRequest(parent=parent))
    assert len(resources.resources) == 3
    read = await stub.ReadResource(pb.ReadResourceRequest(parent=parent, uri="orderly://one"))
    assert read.contents[0].resource.text == "a resource"
    prompts = await stub.ListMcpPrompts(pb.ListMcpPromptsRequest(parent=parent))
    assert [one.prompt for one in prompts.prompts] == ["greet", "part"]
    filled = await stub.GetMcpPrompt(pb.GetMcpPromptRequest(parent=parent, prompt="greet"))
    assert filled.messages[0].content.text == "greet somebody"


async def test_a_closed_session_answers_no_call_and_is_not_closed_twice(stub: Any) -> None:
    await register(stub)
    session, request_id = await open_session(stub), str(uuid4())
    closed = await close(stub, session, request_id)
    assert await close(stub, session, request_id) == closed
    for call in (
        close(stub, session),
        stub.CallTool(calling("echo", session.name)),
        stub.ListTools(pb.ListToolsRequest(parent=session.name)),
        stub.ReadResource(pb.ReadResourceRequest(parent=session.name, uri="orderly://one")),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "MCP_SESSION_CLOSED")
        assert "closed by its user): open another one" in refused.text


async def test_a_session_is_its_users_alone(server: RunningServer, stub: Any) -> None:
    await register(stub, level=ORGANIZATION)
    session = await open_session(stub)
    async with connected(server, await member_key(server)) as member:
        assert not (await member.ListMcpSessions(pb.ListMcpSessionsRequest())).mcp_sessions
        for call in (
            get(member, session),
            close(member, session),
            member.CallTool(calling("echo", session.name)),
        ):
            assert (await refusal(call)).code == "NOT_FOUND"
        assert (await open_session(member)).user != session.user


async def test_opening_is_repeated_by_its_request_id(stub: Any, tmp_path: Path) -> None:
    record, request_id = tmp_path / "record", str(uuid4())
    await register(stub, stdio=unruly(RECORD=str(record)))
    opened = await asyncio.gather(*(open_session(stub, request_id=request_id) for _ in range(5)))
    assert len({session.name for session in opened}) == 1
    assert await open_session(stub, request_id=request_id) == opened[0]
    assert len((await stub.ListMcpSessions(pb.ListMcpSessionsRequest())).mcp_sessions) == 1
    assert (await stub.CallTool(calling("ok", opened[0].name))).content[0].text == "fine"
    await close(stub, opened[0])
    await until(none_left(processes(record)), seconds=PATIENCE_SECONDS)  # none of those that lost the race, either


async def test_no_session_is_opened_with_what_cannot_be_used(stub: Any) -> None:
    await register(stub, "dead", stdio=unruly("die_at_start"))
    await register(stub, "off", disabled=True)
    expected = {
        "dead": ("UNAVAILABLE", "MCP_SERVER_UNAVAILABLE"),
        "off": ("FAILED_PRECONDITION", "RUNTIME_UNAVAILABLE"),
        "nothing": ("NOT_FOUND", "RESOURCE_NOT_FOUND"),
    }
    for server_id, status in expected.items():
        refused = await refusal(open_session(stub, server_id))
        assert (refused.code, refused.reason) == status
    assert not (await stub.ListMcpSessions(pb.ListMcpSessionsRequest())).mcp_sessions


async def test_who_leaves_while_a_session_is_opened_leaves_no_connection_behind(stub: Any, tmp_path: Path) -> None:
    record = tmp_path / "record"
    await register(stub, stdio=unruly("mute", RECORD=str(record)))
    opening = asyncio.ensure_future(open_session(stub))

    async def lists() -> bool:
        return bool(recorded(record, "tools/list"))

    await until(lists, seconds=PATIENCE_SECONDS)
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await until(none_left(processes(record)), seconds=PATIENCE_SECONDS)


async def test_ten_sessions_of_a_user_are_open_and_no_more_when_many_race(stub: Any) -> None:
    await register(stub)

    async def one() -> str:
        try:
            return (await open_session(stub)).name
        except grpc.aio.AioRpcError as error:
            return f"{code_of(error)} {reason_of(error)}: {error.details()}"

    outcomes = await asyncio.gather(*(one() for _ in range(14)))
    opened = [name for name in outcomes if name.startswith("mcpSessions/")]
    assert len(opened) == 10, outcomes
    assert {outcome.partition(":")[0] for outcome in set(outcomes) - set(opened)} == {
        "RESOURCE_EXHAUSTED LIMIT_REACHED"
    }, outcomes
    await close(stub, pb.McpSession(name=opened[0]))
    assert (await open_session(stub)).state == pb.MCP_SESSION_STATE_OPEN


async def test_a_deleted_server_closes_its_sessions_and_one_of_its_name_does_not_open_them(
    stub: Any, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    await register(stub, stdio=unruly(RECORD=str(record)))
    session = await open_session(stub)
    await stub.DeleteMcpServer(pb.DeleteMcpServerRequest(name="mcpServers/orderly"))
    await register(stub)
    found = await get(stub, session)
    assert (found.state, found.state_reason) == (pb.MCP_SESSION_STATE_CLOSED, "its MCP server was deleted")
    assert (await refusal(stub.CallTool(calling("ok", session.name)))).reason == "MCP_SESSION_CLOSED"
    await until(none_left(processes(record)))


async def test_a_disabled_server_is_not_used_over_its_sessions(stub: Any) -> None:
    await register(stub)
    session = await open_session(stub)
    await update(stub, "orderly", disabled=True)
    assert (await refusal(stub.CallTool(calling("echo", session.name)))).code == "FAILED_PRECONDITION"
    await update(stub, "orderly", ["disabled"])
    assert (await stub.CallTool(calling("echo", session.name))).content


async def test_a_session_stays_with_the_server_that_it_was_opened_with(stub: Any, tmp_path: Path) -> None:
    await register(stub, stdio=unruly(RECORD=str(tmp_path / "record")), level=ORGANIZATION)
    session = await open_session(stub)
    await register(stub)  # nearer
    assert (await stub.CallTool(calling("ok", session.name))).content[0].text == "fine"


async def test_sessions_are_listed_by_state_and_server_over_pages(stub: Any) -> None:
    await register(stub)
    await register(stub, "other")
    opened = [await open_session(stub, name) for name in ("orderly", "other", "orderly")]
    await close(stub, opened[0])

    async def names(**query: Any) -> list[str]:
        found, token = [], ""
        while True:
            request = pb.ListMcpSessionsRequest(page_size=1, page_token=token, **query)
            page = await stub.ListMcpSessions(request)
            found += [session.name for session in page.mcp_sessions]
            token = page.next_page_token
            if not token:
                return found

    in_order = [session.name for session in opened]
    assert await names() == in_order[::-1]
    assert await names(order_by="create_time") == in_order
    assert await names(filter="state = CLOSED") == in_order[:1]
    assert await names(filter='server = "mcpServers/other"') == in_order[1:2]


async def test_idle_sessions_are_closed_and_one_with_a_call_under_way_is_not(
    server: RunningServer, stub: Any, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    await register(stub, stdio=unruly(RECORD=str(record)))
    busy, idle = [await open_session(stub, idle_timeout=SOON) for _ in range(2)]
    call = asyncio.ensure_future(stub.CallTool(calling("hang", busy.name)))

    async def is_closed() -> bool:
        return (await get(stub, idle)).state == pb.MCP_SESSION_STATE_CLOSED

    await until(is_closed, seconds=PATIENCE_SECONDS)
    assert (await get(stub, idle)).state_reason == "nobody used it for its idle timeout"
    (event,) = await trail(server, action="mcp_session.close", resource=idle.name)
    assert event.actor == "system"
    assert (await get(stub, busy)).state == pb.MCP_SESSION_STATE_OPEN
    assert not call.done()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await until(none_left(processes(record)), seconds=PATIENCE_SECONDS)


async def test_every_change_of_a_session_is_in_the_trail(server: RunningServer, stub: Any) -> None:
    await register(stub)
    session = await open_session(stub)
    await close(stub, session)
    events = await trail(server, resource=session.name)
    assert [event.action for event in events] == ["mcp_session.open", "mcp_session.close"]


async def test_a_session_is_used_and_closed_on_another_server_process(database_url: str, tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with (
        running(server_settings(tmp_path / "one", database_url)) as one,
        running(server_settings(tmp_path / "two", database_url)) as two,
        connected(one) as here,
        connected(two, one.admin_key) as there,
    ):
        await register(here, stdio=unruly(RECORD=str(record)))
        session = await open_session(here)
        assert (await there.CallTool(calling("ok", session.name))).content[0].text == "fine"
        assert len(recorded(record, "initialize")) == 2
        await close(there, session)
        assert (await refusal(here.CallTool(calling("ok", session.name)))).reason == "MCP_SESSION_CLOSED"
        await until(none_left(processes(record)), seconds=PATIENCE_SECONDS)
