"""What other agents do with Stationmaster by its tools, over each transport where it matters."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import uuid4

import pytest
from stationmaster.v1 import event_pb2
from stationmaster_client import Client

from tests.client.cli.program import Program
from tests.client.mcp_server.agent import Agent, over_stdio
from tests.fixtures.server import RunningServer
from tests.waiting import until

WRITE = '/tool files.write {"path": "a.txt", "content": "hello"}'
FOREVER = "/slow 200\n/say 5000"


async def begin(agent: Agent, *tools: str) -> str:
    """A session of the model demo."""
    return str((await agent("create_session", model="demo", tools=list(tools)))[1]["name"])


async def test_a_conversation_from_first_to_last_tool(agent: Agent) -> None:
    _, me = await agent("whoami")
    assert me["role"] == "owner"
    assert (await agent("server_status"))[1]["serving"] is True
    assert "demo" in [model["model_id"] for model in (await agent("list_models"))[1]["models"]]
    _, session = await agent("create_session", model="demo", tools=["files.*"], display_name="Try", labels={"a": "b"})
    name = session["name"]
    text, turn = await agent("send_message", session=name, text="hello there")
    assert turn["state"] == "completed"
    assert text.startswith(turn["answer"])
    assert turn["output_tokens"] > 0
    _, listed = await agent("list_sessions", filter='labels.a = "b"')
    assert [item["name"] for item in listed["sessions"]] == [name]
    text, said = await agent("list_messages", session=name)
    assert [message["role"] for message in said["messages"]] == ["assistant", "user"]
    assert "hello there" in text
    _, fork = await agent("fork_session", session=name, up_to_message=1)
    assert (fork["message_count"], fork["forked_from"]) == (1, f"{name}/messages/1")
    _, found = await agent("search_messages", query="hello", session=name)
    assert 1 in [hit["number"] for hit in found["hits"]]
    _, ended = await agent("terminate_session", session=name, reason="done")
    assert (ended["state"], ended["state_reason"]) == ("terminated", "done")
    contents = (await agent.mcp.read_resource(f"session://{name.removeprefix('sessions/')}")).contents
    assert "hello there" in getattr(contents[0], "text", "")


async def test_turn_that_waits_for_permission_says_so_and_goes_on_when_answered(agent: Agent) -> None:
    name = await begin(agent, "files.*")
    text, asked = await agent("send_message", session=name, text=WRITE)
    assert asked["state"] == "awaiting_permission"
    (request,) = asked["permission_requests"]
    assert (request["tool"], request["arguments"]) == ("files.write", {"path": "a.txt", "content": "hello"})
    assert request["name"] in text
    assert "resolve_permission" in text
    _, waiting = await agent("list_permission_requests", session=name)
    assert [item["name"] for item in waiting["permission_requests"]] == [request["name"]]
    _, again = await agent("wait_for_turn", turn=asked["turn"])
    assert again["state"] == "awaiting_permission"
    _, behind = await agent("send_message", session=name, text="hello")
    assert (behind["state"], len(behind["permission_requests"])) == ("queued", 1)
    _, answered = await agent("resolve_permission", permission_request=request["name"], decision="allow_once")
    assert answered["state"] == "allowed"
    _, done = await agent("wait_for_turn", turn=asked["turn"])
    assert done["state"] == "completed"
    assert [(use["tool"], use["is_error"]) for use in done["tool_calls"]] == [("files.write", False)]
    assert (await agent("wait_for_turn", turn=behind["turn"]))[1]["state"] == "completed"
    late = await agent.error("resolve_permission", permission_request=request["name"], decision="deny")
    assert "PERMISSION_ALREADY_RESOLVED" in late


async def test_waiting_ends_in_time_and_the_turn_goes_on_until_it_is_cancelled(agent: Agent) -> None:
    name = await begin(agent)
    text, turn = await agent("send_message", session=name, text=FOREVER, wait_seconds=0.5)
    assert turn["state"] == "running"
    assert "wait_for_turn" in text
    busy = await agent.error("send_message", session=name, text="hello", if_busy="reject")
    assert "SESSION_BUSY" in busy
    assert "cancel_turn" in busy
    _, ended = await agent("cancel_turn", turn=name)
    assert (ended["turn"], ended["state"]) == (turn["turn"], "cancelled")
    assert (await agent("get_session", session=name))[1]["state"] == "active"


async def test_message_that_is_sent_again_under_its_request_id_is_sent_once(local: Agent) -> None:
    name, request_id = await begin(local), str(uuid4())
    _, first = await local("send_message", session=name, text="hello there", request_id=request_id)
    _, second = await local("send_message", session=name, text="hello there", request_id=request_id)
    assert (first["turn"], first["answer"], first["request_id"]) == (second["turn"], second["answer"], request_id)
    assert (await local("get_session", session=name))[1]["message_count"] == 2


async def test_progress_tells_of_tools_and_text(agent: Agent) -> None:
    name = await begin(agent, "files.*", "math.*")
    await agent("send_message", session=name, text='/tool math.evaluate {"expression": "6*7"}')
    assert any(step.startswith("calls math.evaluate") for step in agent.progress)
    assert "math.evaluate is done" in agent.progress


async def test_turn_that_fails_is_an_error_with_its_reason(local: Agent) -> None:
    name = await begin(local)
    result = await local.raw("send_message", session=name, text="/fail auth")
    assert result.is_error
    assert result.structured_content["state"] == "failed"
    assert "The turn failed" in result.content[0].text


@pytest.mark.parametrize("asked", [True, False])
async def test_cancelled_request_cancels_the_turn_only_if_asked(
    agent: Agent, server: RunningServer, asked: bool
) -> None:
    name = await begin(agent)
    options = {"cancel_turn_with_request": True} if asked else {}
    sending = asyncio.create_task(agent("send_message", session=name, text=FOREVER, wait_seconds=600, **options))
    async with Client.connect(server.target, server.admin_key) as client:

        async def turn() -> str:
            return (await client.sessions.get(name)).current_turn

        started = await until(turn)
        await until(lambda: _has_said_something(client, name))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending

        async def cancelled() -> bool:
            return (await client.sessions.turn(started)).state == event_pb2.TURN_STATE_CANCELLED

        if asked:
            await until(cancelled)
        else:
            assert (await agent("wait_for_turn", turn=started, wait_seconds=0.5))[1]["state"] == "running"
            await client.sessions.cancel(started)


async def _has_said_something(client: Client, session: str) -> bool:
    return (await client.sessions.get(session)).last_sequence > 6


async def test_long_conversation_is_shown_in_bounded_parts(local: Agent, server: RunningServer) -> None:
    name = await begin(local)
    async with Client.connect(server.target, server.admin_key) as client:
        await client.sessions.ask(name, "long " * 40_000)
        for number in range(12):
            await client.sessions.ask(name, f"number {number} " + "x" * 15_000)
    text, page = await local("list_messages", session=name, order="oldest_first", limit=100, max_characters=20_000)
    assert len(text) < 80_000
    numbers = [message["number"] for message in page["messages"]]
    assert page["messages"][0]["truncated"] is True
    while page["next_start"] is not None:
        _, page = await local(
            "list_messages",
            session=name,
            order="oldest_first",
            start=page["next_start"],
            limit=100,
            max_characters=20_000,
        )
        numbers += [message["number"] for message in page["messages"]]
    assert numbers == list(range(1, 27))
    whole = ""
    piece: dict[str, Any] = {"next_offset": 0}
    while piece["next_offset"] is not None:
        offset = piece["next_offset"]
        _, piece = await local("read_message", session=name, number=1, offset=offset, max_characters=60_000)
        whole += piece["piece"]
    assert whole == "long " * 40_000
    _, newest = await local("list_messages", session=name, limit=2)
    assert ([message["number"] for message in newest["messages"]], newest["next_start"]) == ([26, 25], 24)
    contents = (await local.mcp.read_resource(f"session://{name.removeprefix('sessions/')}")).contents
    assert len(getattr(contents[0], "text", "")) < 80_000


async def test_lists_go_on_with_the_token_of_the_page_before(local: Agent) -> None:
    made = [await begin(local) for _ in range(3)]
    text, first = await local("list_sessions", limit=2)
    assert f"page_token={first['next_page_token']!r}" in text
    _, second = await local("list_sessions", limit=2, page_token=first["next_page_token"])
    assert second["next_page_token"] == ""
    found = [session["name"] for page in (first, second) for session in page["sessions"]]
    assert found == made[::-1]


async def test_errors_say_what_to_do(local: Agent) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    assert "RESOURCE_NOT_FOUND" in await local.error("get_session", session=nobody)
    assert "sessions/{id}" in await local.error("get_session", session="nonsense/x")
    assert "either agent or model" in await local.error("create_session")
    assert "list_models" in await local.error("create_session", model="anthropic:nothing")
    assert "state = ACTIVE" in await local.error("list_sessions", filter="nonsense ~ 1")
    assert "less than or equal to 100" in await local.error("list_sessions", limit=1_000)
    assert "Unknown tool" in await local.error("no_such_tool")
    name = await begin(local)
    await local("terminate_session", session=name)
    closed = await local.error("send_message", session=name, text="hello")
    assert "fork_session" in closed
    assert "ForkSession" not in closed


async def test_wrong_arguments_are_told_by_name_with_what_the_tool_takes(local: Agent) -> None:
    name = await begin(local)
    _, before = await local("list_sessions")
    missing, short, many, decided, unknown = [
        await local.error(tool, **arguments)
        for tool, arguments in (
            ("send_message", {"session": name}),
            ("send_message", {"session": name, "text": ""}),
            ("list_sessions", {"limit": 1_000}),
            ("resolve_permission", {"permission_request": "x", "decision": "allow"}),
            ("fork_session", {"session": name, "after_message": 99}),
        )
    ]
    assert "text: is missing" in missing
    assert "send_message takes session, text, wait_seconds" in missing
    assert "text: must have at least 1 character" in short
    assert "limit: must be less than or equal to 100, and is 1000" in many
    assert "decision: must be 'allow_once', 'allow_for_session' or 'deny', and is 'allow'" in decided
    assert "after_message: there is no such argument; fork_session takes session, up_to_message" in unknown
    assert (await local("list_sessions"))[1] == before
    for told in (missing, short, many, decided, unknown):
        assert "pydantic" not in told
        assert "validation error" not in told
    schemas = [tool.input_schema for tool in (await local.mcp.list_tools()).tools]
    assert all(schema["additionalProperties"] is False for schema in schemas)


async def test_what_is_not_there_is_told_with_the_tool_that_shows_what_is(local: Agent) -> None:
    name = await begin(local)
    nobody = "00000000-0000-7000-8000-000000000000"
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("create_session", {"agent": "nobody"}, "list_agents"),
        ("get_session", {"session": nobody}, "list_sessions"),
        ("wait_for_turn", {"turn": f"{name}/turns/{nobody}"}, "send_message"),
        ("get_background_service_status", {"service": "nobody"}, "get_background_service_status without service"),
        (
            "resolve_permission",
            {"permission_request": f"{name}/permissionRequests/{nobody}", "decision": "deny"},
            "list_permission_requests",
        ),
        ("read_message", {"session": name, "number": 77}, "list_messages"),
    ]
    tools = {tool.name for tool in (await local.mcp.list_tools()).tools}
    for tool, arguments, advice in cases:
        told = await local.error(tool, **arguments)
        assert advice in told, told
        others = {other for other in tools - {tool, advice.split()[0]} if re.search(rf"\b{other}\b", told)}
        assert others == set(), told
    unknown = await local.error("send_mesage")
    assert "did you mean send_message?" in unknown
    assert "list_sessions" in unknown


async def test_what_does_not_fit_is_told_in_words(local: Agent) -> None:
    for tool, arguments in (
        ("force_task_embedding", {"task": "No Task"}),
        ("get_background_service_status", {"service": "No Service"}),
        ("get_agent", {"agent": "Nobody!"}),
    ):
        told = await local.error(tool, **arguments)
        assert "small letters, digits and -" in told, told
        assert not any(part in told for part in ("^", "]{", "pattern")), told


async def test_every_tool_says_what_it_takes_gives_and_changes(local: Agent) -> None:
    tools = (await local.mcp.list_tools()).tools
    by_name = {tool.name: tool for tool in tools}
    reading = {name for name, tool in by_name.items() if tool.annotations and tool.annotations.read_only_hint}
    assert reading == {
        *("list_sessions", "get_session", "list_messages", "read_message", "search_messages", "wait_for_turn"),
        *("list_permission_requests", "list_agents", "get_agent", "list_models", "whoami", "server_status"),
        "get_background_service_status",
    }
    destructive = {name for name, tool in by_name.items() if tool.annotations and tool.annotations.destructive_hint}
    assert destructive == {"send_message", "cancel_turn", "terminate_session", "resolve_permission"}
    for tool in tools:
        assert tool.description
        assert tool.title
        assert tool.output_schema
        assert tool.annotations
        assert not any(name in ("context", "call") for name in tool.input_schema["properties"]), tool.name
    for name in ("list_sessions", "send_message"):
        assert all("description" in field for field in by_name[name].input_schema["properties"].values())
    templates = (await local.mcp.list_resource_templates()).resource_templates
    assert [template.uri_template for template in templates] == ["session://{session}"]


async def test_agents_are_shown_with_what_needs_permission(local: Agent, program: Program) -> None:
    made = await program("agents", "create", "clerk", "--model", "demo", "--tool", "files.*", "--ask", "files.write")
    assert made.code == 0, made.err
    text, listed = await local("list_agents")
    assert [item["name"] for item in listed["agents"]] == ["agents/clerk"]
    assert "agents/clerk (demo)" in text
    _, shown = await local("get_agent", agent="clerk")
    assert shown["tool_policies"] == {"files.write": "ask"}
    assert (await local("create_session", agent="clerk"))[1]["agent"] == "agents/clerk"


async def test_server_that_is_away_is_a_tool_error_that_says_so(program: Program) -> None:
    nowhere = Program(program.home, "127.0.0.1:1", program.api_key)
    async with over_stdio(nowhere) as agent:
        assert len((await agent.mcp.list_tools()).tools) > 10
        assert "127.0.0.1:1 cannot be reached" in await agent.error("whoami")
