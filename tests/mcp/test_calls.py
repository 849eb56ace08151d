"""Calls to MCP servers through the API: once each, bounded by who waits, in the trail."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import agent_pb2, audit_pb2, identity_pb2, identity_pb2_grpc
from stationmaster.v1 import mcp_pb2 as pb

from tests.fixtures.server import RunningServer
from tests.mcp import modern
from tests.mcp.served import (
    calling,
    connected,
    member_key,
    named,
    open_session,
    recorded,
    refusal,
    register,
    trail,
    unruly,
    update,
)
from tests.waiting import until

ALLOWED, FAILED = audit_pb2.AUDIT_OUTCOME_ALLOWED, audit_pb2.AUDIT_OUTCOME_FAILED


@pytest_asyncio.fixture
async def stub(server: RunningServer) -> AsyncIterator[Any]:
    async with connected(server) as made:
        yield made


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Where the misbehaving server writes what it gets."""
    return tmp_path / "record"


def executions(record: Path) -> int:
    """How many calls of tools have come to the misbehaving server."""
    return len(recorded(record, "tools/call"))


def text(answer: pb.CallToolResponse) -> str:
    return answer.content[0].text


async def test_a_call_is_answered(stub: Any) -> None:
    await register(stub)
    answer = await stub.CallTool(calling("add", a=2, b=3))
    assert (text(answer), answer.is_error, answer.truncated) == ("5", False, False)
    assert answer.duration.ToMicroseconds() > 0


async def test_a_tool_that_fails_is_an_answer(stub: Any) -> None:
    await register(stub)
    answer = await stub.CallTool(calling("fail"))
    assert (text(answer), answer.is_error) == ("it did not work", True)


async def test_what_is_wrong_with_a_call_is_told_before_it_is_made_and_leaves_no_trace(
    server: RunningServer, stub: Any
) -> None:
    await register(stub)
    wrong = [
        (calling("nothing"), "NOT_FOUND", "nothing"),
        (calling("echo", "mcpServers/nothing"), "NOT_FOUND", "mcpServers/nothing"),
        (calling("echo", f"mcpSessions/{uuid4()}"), "NOT_FOUND", "mcpSessions/"),
        (calling("add", a="two", b=3), "INVALID_ARGUMENT", "arguments.a"),
        (calling("add", a=2), "INVALID_ARGUMENT", "arguments"),
    ]
    for request, code, said in wrong:
        request.request_id = str(uuid4())
        refused = await refusal(stub.CallTool(request))
        assert refused.code == code
        assert said in refused.text
    assert await trail(server, action="mcp.call") == []


async def test_tools_that_are_not_allowed_are_listed_as_such_and_not_called(stub: Any, record: Path) -> None:
    await register(stub, stdio=unruly(RECORD=str(record)), allowed_tools=["co*"])
    tools = (await stub.ListTools(pb.ListToolsRequest(parent="mcpServers/orderly"))).tools
    assert [tool.tool for tool in tools if not tool.unusable_reason] == ["count"]
    refused = await refusal(stub.CallTool(calling("ok")))
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "TOOL_DENIED")
    assert executions(record) == 0
    await update(stub, "orderly", ["allowed_tools"])
    assert text(await stub.CallTool(calling("ok"))) == "fine"


async def test_what_the_organization_denies_is_not_called(server: RunningServer, stub: Any, record: Path) -> None:
    await register(stub, stdio=unruly(RECORD=str(record)))
    async with server.channel() as channel:
        identity: Any = identity_pb2_grpc.IdentityServiceStub(channel)
        me = await identity.WhoAmI(identity_pb2.WhoAmIRequest())
        deny = agent_pb2.ToolPolicy(pattern="*.ok", effect=agent_pb2.TOOL_EFFECT_DENY)
        organization = identity_pb2.Organization(name=me.organization.name, tool_policies=[deny])
        await identity.UpdateOrganization(
            identity_pb2.UpdateOrganizationRequest(
                organization=organization, update_mask=FieldMask(paths=["tool_policies"])
            )
        )
    refused = await refusal(stub.CallTool(calling("ok")))
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "TOOL_DENIED")
    assert executions(record) == 0


async def test_a_repeat_is_answered_and_not_executed(stub: Any, record: Path) -> None:
    await register(stub, stdio=unruly(RECORD=str(record)))
    request = calling("ok", request_id=str(uuid4()))
    first = await stub.CallTool(request)
    assert await stub.CallTool(request) == first
    assert executions(record) == 1
    await stub.CallTool(calling("ok", request_id=str(uuid4())))
    assert executions(record) == 2


async def test_of_many_racing_repeats_one_is_executed(stub: Any, record: Path, tmp_path: Path) -> None:
    counted = tmp_path / "counted"
    await register(stub, stdio=unruly(RECORD=str(record), EXECUTIONS=str(counted)))
    request = calling("count", request_id=str(uuid4()), id="one", seconds=0.3)
    outcomes = await asyncio.gather(*(stub.CallTool(request) for _ in range(8)), return_exceptions=True)
    answered = [one for one in outcomes if isinstance(one, pb.CallToolResponse)]
    assert {text(one) for one in answered} == {"one"}
    assert counted.read_text() == "one\n"
    assert text(await stub.CallTool(request)) == "one"


async def test_a_repeat_while_the_first_is_under_way_is_told_to_come_again(stub: Any, record: Path) -> None:
    await register(stub, stdio=unruly(RECORD=str(record)))
    request = calling("hang", request_id=str(uuid4()))
    first = asyncio.ensure_future(stub.CallTool(request))

    async def has_come() -> bool:
        return executions(record) == 1

    await until(has_come)
    refused = await refusal(stub.CallTool(request))
    assert (refused.code, refused.reason) == ("ABORTED", "CONCURRENT_CHANGE")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_request_id_is_not_used_for_another_call(stub: Any) -> None:
    await register(stub)
    request_id = str(uuid4())
    await stub.CallTool(calling("add", request_id=request_id, a=2, b=3))
    for other in (calling("add", request_id=request_id, a=2, b=4), calling("echo", request_id=request_id)):
        assert (await refusal(stub.CallTool(other))).reason == "REQUEST_ID_REUSED"


async def test_request_ids_of_two_users_are_apart(server: RunningServer, stub: Any) -> None:
    await register(stub, level=pb.MCP_LEVEL_ORGANIZATION)
    request_id = str(uuid4())
    await stub.CallTool(calling("add", request_id=request_id, a=2, b=3))
    async with connected(server, await member_key(server)) as member:
        assert text(await member.CallTool(calling("add", request_id=request_id, a=2, b=4))) == "6"


@pytest.mark.parametrize("tool", ["no_mcp", "invalid_json", "die"])
async def test_a_call_that_may_have_done_its_work_is_not_made_again(stub: Any, record: Path, tool: str) -> None:
    await register(stub, stdio=unruly(RECORD=str(record)))
    request = calling(tool, request_id=str(uuid4()))
    assert (await refusal(stub.CallTool(request))).code in ("FAILED_PRECONDITION", "ABORTED")
    refused = await refusal(stub.CallTool(request))
    assert (refused.code, refused.reason) == ("ABORTED", "MCP_CALL_UNCERTAIN")
    assert executions(record) == 1


async def test_a_call_that_was_never_made_is_made_by_its_repeat(stub: Any) -> None:
    await register(stub, stdio=unruly("die_at_start"))
    request = calling("ok", request_id=str(uuid4()))
    assert (await refusal(stub.CallTool(request))).code == "UNAVAILABLE"
    await update(stub, "orderly", stdio=unruly())
    assert text(await stub.CallTool(request)) == "fine"


async def test_a_repeat_is_answered_after_the_server_is_gone(stub: Any) -> None:
    await register(stub)
    request = calling("add", request_id=str(uuid4()), a=2, b=3)
    first = await stub.CallTool(request)
    await stub.DeleteMcpServer(pb.DeleteMcpServerRequest(name="mcpServers/orderly"))
    assert await stub.CallTool(request) == first


async def test_a_repeat_of_a_large_answer_says_that_it_is_not_all(stub: Any) -> None:
    await register(stub, stdio=unruly())
    request = calling("huge", request_id=str(uuid4()))
    first = await stub.CallTool(request)
    assert first.truncated
    assert len(text(first)) > 1_000_000
    repeated = await stub.CallTool(request)
    assert (list(repeated.content), repeated.truncated, repeated.duration) == ([], True, first.duration)


async def test_a_repeat_has_the_data_of_the_answer_unless_it_is_large(stub: Any) -> None:
    await register(stub, stdio=unruly())
    small = calling("data", request_id=str(uuid4()), count=1000)
    assert await stub.CallTool(small) == await stub.CallTool(small)
    large = calling("data", request_id=str(uuid4()), count=100_000)
    first, repeated = [await stub.CallTool(large) for _ in range(2)]
    assert (first.HasField("structured_content"), first.truncated) == (True, False)
    assert (repeated.HasField("structured_content"), repeated.truncated) == (False, True)


async def test_data_that_is_too_large_as_a_message_is_left_out(stub: Any) -> None:
    await register(stub, stdio=unruly())
    answer = await stub.CallTool(calling("data", count=400_000))
    assert (text(answer), answer.HasField("structured_content"), answer.truncated) == ("data", False, True)


@pytest.mark.parametrize("parent", ["server", "session"])
async def test_the_callers_deadline_ends_the_call_on_the_server(stub: Any, record: Path, parent: str) -> None:
    await register(stub, stdio=unruly(RECORD=str(record)))
    name = "mcpServers/orderly" if parent == "server" else (await open_session(stub)).name
    await stub.CallTool(calling("ok", name))
    refused = await refusal(stub.CallTool(calling("stubborn", name), timeout=1))
    assert refused.code == "DEADLINE_EXCEEDED"

    async def cancelled() -> bool:
        hung = [one["id"] for one in recorded(record, "tools/call") if one["params"]["name"] == "stubborn"]
        return hung == [one["params"]["requestId"] for one in recorded(record, "notifications/cancelled")]

    await until(cancelled)
    assert text(await stub.CallTool(calling("ok", name))) == "fine"


async def test_the_servers_limit_ends_a_call_when_it_is_shorter(stub: Any) -> None:
    await register(stub, stdio=unruly(), call_timeout=Duration(seconds=1))
    refused = await refusal(stub.CallTool(calling("hang"), timeout=100))
    assert refused.code == "DEADLINE_EXCEEDED"
    assert "'orderly' did not answer 'hang' within 1" in refused.text


async def test_a_caller_that_leaves_ends_the_call_on_the_server_and_is_in_the_trail(
    server: RunningServer, stub: Any
) -> None:
    await register(stub, stdio=pb.McpStdio(command=sys.executable, arguments=[modern.PROGRAM, "stdio"]))
    request = calling("hang", request_id=str(uuid4()), name="one")
    call = asyncio.ensure_future(stub.CallTool(request, metadata=named("left")))

    async def hanging() -> str:
        return text(await stub.CallTool(calling("hanging")))

    async def hangs() -> bool:
        return await hanging() == "one"

    async def hangs_no_more() -> bool:
        return await hanging() == ""

    await until(hangs, seconds=60)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await until(hangs_no_more, seconds=60)

    async def both() -> list[audit_pb2.AuditEvent]:
        events = await trail(server, "left")
        return events if len(events) == 2 else []

    made, failed = await until(both)
    assert [(one.action, one.outcome) for one in (made, failed)] == [("mcp.call", ALLOWED), ("mcp.fail", FAILED)]
    assert failed.reason == "CANCELLED"
    assert (await refusal(stub.CallTool(request))).reason == "MCP_CALL_UNCERTAIN"


async def test_every_call_is_in_the_trail_once_and_its_failure_beside_it(server: RunningServer, stub: Any) -> None:
    await register(stub, stdio=unruly())
    session = await open_session(stub)
    await stub.CallTool(calling("ok"), metadata=named("one"))
    await stub.CallTool(calling("ok", session.name), metadata=named("two"))
    await refusal(stub.CallTool(calling("no_mcp"), metadata=named("three")))
    seen = [
        [(event.action, event.resource, event.outcome, event.reason) for event in await trail(server, request)]
        for request in ("one", "two", "three")
    ]
    assert seen == [
        [("mcp.call", "mcpServers/orderly", ALLOWED, "")],
        [("mcp.call", session.name, ALLOWED, "")],
        [
            ("mcp.call", "mcpServers/orderly", ALLOWED, ""),
            ("mcp.fail", "mcpServers/orderly", FAILED, "MCP_SERVER_FAULT"),
        ],
    ]


async def test_lists_are_filtered_by_patterns_and_paged(stub: Any) -> None:
    await register(stub)
    parent = "mcpServers/orderly"

    async def all_of(method: Any, request: Any, field: str, key: str) -> list[str]:
        found, request.page_size = [], 1
        while True:
            page = await method(request)
            found += [getattr(one, key) for one in getattr(page, field)]
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    async def tools(pattern: str) -> list[str]:
        return await all_of(stub.ListTools, pb.ListToolsRequest(parent=parent, filter=pattern), "tools", "tool")

    async def resources(pattern: str) -> list[str]:
        request = pb.ListResourcesRequest(parent=parent, filter=pattern)
        return await all_of(stub.ListResources, request, "resources", "uri")

    async def prompts(pattern: str) -> list[str]:
        request = pb.ListMcpPromptsRequest(parent=parent, filter=pattern)
        return await all_of(stub.ListMcpPrompts, request, "prompts", "prompt")

    assert [await tools(pattern) for pattern in ("", "*c*", "add", "ad", "*.*")] == [
        ["add", "echo", "fail"],
        ["echo"],
        ["add"],
        [],
        [],
    ]
    assert await resources("") == ["orderly://one", "orderly://two", "orderly://{name}"]
    assert await resources("*two") == ["orderly://two"]
    assert await prompts("") == ["greet", "part"]
    assert await prompts("g*") == ["greet"]
    for call in (tools("(("), resources("a b"), prompts('"x"')):
        assert (await refusal(call)).reason == "INVALID_FILTER"


async def test_page_tokens_are_of_their_list_alone(stub: Any) -> None:
    await register(stub)
    page = await stub.ListTools(pb.ListToolsRequest(parent="mcpServers/orderly", page_size=1))
    token = page.next_page_token
    wrong = pb.ListToolsRequest(parent="mcpServers/orderly", page_size=1, filter="e*", page_token=token)
    assert (await refusal(stub.ListTools(wrong))).reason == "PAGE_TOKEN_INVALID"


async def test_what_a_server_does_not_have_is_not_found(stub: Any) -> None:
    await register(stub)
    parent = "mcpServers/orderly"
    calls: list[Any] = [
        stub.ReadResource(pb.ReadResourceRequest(parent=parent, uri="orderly://nothing")),
        stub.GetMcpPrompt(pb.GetMcpPromptRequest(parent=parent, prompt="nothing")),
    ]
    for call in calls:
        refused = await refusal(call)
        assert (refused.code, refused.reason) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


async def test_built_in_servers_are_called_like_others(stub: Any) -> None:
    tools = (await stub.ListTools(pb.ListToolsRequest(parent="mcpServers/monitoring"))).tools
    assert tools
    assert all(tool.qualified_name.startswith("monitoring.") for tool in tools)
    checked = await stub.CheckMcpServer(pb.CheckMcpServerRequest(name="mcpServers/monitoring"))
    assert checked.healthy
