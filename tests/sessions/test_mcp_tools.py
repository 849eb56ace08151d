"""Agents with tools of MCP servers: offered, asked about, run, and told of; through the API of a real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from stationmaster.v1 import agent_pb2, event_pb2, mcp_pb2, mcp_pb2_grpc, session_pb2
from stationmaster_client import Client
from stationmaster_client.errors import FailedPrecondition

from tests.contract.world import MCP_SERVER
from tests.fixtures.server import RunningServer
from tests.mcp import misbehaving
from tests.mcp.test_kills import descendants, line_of
from tests.waiting import until

LIMIT_SECONDS = 60
ALLOW = agent_pb2.TOOL_EFFECT_ALLOW
Answer = Callable[[event_pb2.PermissionRequested], Awaitable[object]]


@dataclass
class Agent:
    """A caller with sessions that name MCP servers."""

    client: Client
    session: str = ""
    events: list[event_pb2.Event] = field(default_factory=list)

    async def register(
        self, name: str, stdio: mcp_pb2.McpStdio = MCP_SERVER, *, level: str = "USER", **fields: Any
    ) -> mcp_pb2.McpServer:
        """Register a server."""
        stub = mcp_pb2_grpc.McpServiceStub(self.client.channel)
        server = mcp_pb2.McpServer(stdio=stdio, level=mcp_pb2.McpLevel.Value(f"MCP_LEVEL_{level}"), **fields)
        request = mcp_pb2.RegisterMcpServerRequest(mcp_server_id=name, mcp_server=server)
        key = (("authorization", f"Bearer {self.client.connection.api_key}"),)
        registered: mcp_pb2.McpServer = await stub.RegisterMcpServer(request, metadata=key)
        return registered

    async def open(self, *servers: str, allow: Sequence[str] = (), tools: Sequence[str] = ()) -> None:
        """A session of the demo model with these servers."""
        policies = [agent_pb2.ToolPolicy(pattern=pattern, effect=ALLOW) for pattern in allow]
        spec = agent_pb2.AgentSpec(model="demo", mcp_servers=servers, tools=tools, tool_policies=policies)
        self.session = (await self.client.sessions.create(spec=spec)).name

    async def say(self, text: str, answer: Answer | None = None) -> str:
        """Send a message, answer what is asked, and return the text of the model."""
        self.events = []
        async with asyncio.timeout(LIMIT_SECONDS), self.client.sessions.send(self.session, text) as stream:
            async for event in stream:
                self.events.append(event)
                if event.HasField("permission_requested"):
                    assert answer is not None, f"{event.permission_requested.call.tool} asked"
                    await answer(event.permission_requested)
        assert self.events[-1].turn_finished.state == event_pb2.TURN_STATE_COMPLETED, self.events[-1]
        return "".join(event.text_delta.text for event in self.events)

    async def allow(self, asked: event_pb2.PermissionRequested) -> None:
        """Allow what is asked, once."""
        await self.client.permissions.allow(asked.permission_request)

    def of(self, kind: str) -> list[Any]:
        """The payloads of one kind of event of the last turn."""
        return [getattr(event, kind) for event in self.events if event.WhichOneof("payload") == kind]

    @property
    def result(self) -> event_pb2.ToolResult:
        """What the one tool call of the last turn came to."""
        (finished,) = self.of("tool_call_finished")
        found: event_pb2.ToolResult = finished.result
        return found


@pytest_asyncio.fixture
async def agent(server: RunningServer) -> AsyncIterator[Agent]:
    async with Client.connect(server.target, server.admin_key, insecure=True) as client:
        yield Agent(client)


def odd(mode: str = "normal") -> mcp_pb2.McpStdio:
    """The server that misbehaves when it is told to."""
    return mcp_pb2.McpStdio(command=sys.executable, arguments=["-I", str(misbehaving.PROGRAM), "stdio", mode])


async def test_a_tool_of_a_named_server_asks_runs_and_answers(agent: Agent) -> None:
    await agent.register("board")
    await agent.open("board")
    said = await agent.say('/tool board.add {"a": 40, "b": 2}', agent.allow)
    assert agent.result.content == "42"
    assert said == "board.add says: 42"
    assert [started.call.tool for started in agent.of("tool_call_started")] == ["board.add"]


async def test_a_denied_call_does_not_reach_the_server_and_the_model_is_told_why(agent: Agent) -> None:
    await agent.register("board")
    await agent.open("board")

    async def deny(asked: event_pb2.PermissionRequested) -> None:
        await agent.client.permissions.deny(asked.permission_request, "not today")

    said = await agent.say("/tool board.echo {}", deny)
    assert "not today" in said
    assert not agent.of("tool_call_started")


async def test_edited_arguments_are_checked_against_the_schema_of_the_server(agent: Agent) -> None:
    await agent.register("board")
    await agent.open("board")

    async def edit(asked: event_pb2.PermissionRequested) -> None:
        await agent.client.permissions.allow(asked.permission_request, arguments={"a": 1, "b": "two"})

    await agent.say('/tool board.add {"a": 1, "b": 1}', edit)
    assert agent.result.is_error
    assert "arguments.b" in agent.result.content

    async def mend(asked: event_pb2.PermissionRequested) -> None:
        await agent.client.permissions.allow(asked.permission_request, arguments={"a": 2, "b": 3})

    await agent.say('/tool board.add {"a": 1, "b": 1}', mend)
    assert agent.result.content == "5"


async def test_allowed_for_the_session_a_tool_does_not_ask_again(agent: Agent) -> None:
    await agent.register("board")
    await agent.open("board")

    async def allow(asked: event_pb2.PermissionRequested) -> None:
        await agent.client.permissions.allow(asked.permission_request, for_session=True)

    await agent.say("/tool board.echo {}", allow)
    await agent.say("/tool board.echo {}")
    assert agent.result.content == "{}"


async def test_the_users_server_is_nearer_than_the_organizations(agent: Agent) -> None:
    await agent.register("board", odd(), level="ORGANIZATION")
    await agent.open("board", allow=["board.*"])
    await agent.say("/tool board.ok {}")
    assert agent.result.content == "fine"
    await agent.register("board")
    await agent.say("/tool board.ok {}")
    assert "There is no tool 'board_ok' here" in agent.result.content
    await agent.say("/tool board.echo {}")
    assert agent.result.content == "{}"


async def test_a_star_names_every_server_and_patterns_choose_of_one(agent: Agent) -> None:
    await agent.register("board")
    await agent.register("odd", odd())
    await agent.open("*", allow=["*"], tools=["board.a*"])
    await agent.say("/tool odd.ok {}")
    assert agent.result.content == "fine"
    await agent.say("/tool board.echo {}")
    assert agent.result.is_error
    assert "board.add" in agent.result.content
    assert "monitoring.sessions" in agent.result.content


async def test_a_turn_goes_on_without_a_server_that_cannot_be_reached(agent: Agent) -> None:
    await agent.register("board")
    await agent.register("dead", odd("die_at_start"))
    await agent.register("nobody")
    await agent.open("dead", "board", "nobody", allow=["*"])
    await agent.client.mcp.delete("nobody")
    await agent.say("/tool board.echo {}")
    assert agent.result.content == "{}"
    told = {message.mcp_server: message for message in agent.of("mcp_message")}
    assert set(told) == {"mcpServers/dead", "mcpServers/nobody"}
    assert "no configuration found" in told["mcpServers/dead"].text
    assert {message.logger for message in told.values()} == {"stationmaster"}
    await agent.say("/tool dead.ok {}")
    assert "no configuration found" in agent.result.content


async def test_what_is_wrong_with_a_server_is_told_once_however_often_its_turn_waits(agent: Agent) -> None:
    await agent.register("board")
    await agent.register("dead", odd("die_at_start"))
    await agent.open("dead", "board")
    await agent.say('/tool board.add {"a": 1, "b": 1}\n/tool board.echo {}', agent.allow)
    assert len(agent.of("permission_requested")) == 2
    assert [message.mcp_server for message in agent.of("mcp_message")] == ["mcpServers/dead"]
    await agent.say("/say 1")
    assert [message.mcp_server for message in agent.of("mcp_message")] == ["mcpServers/dead"]


async def test_a_session_names_only_servers_that_its_user_has(agent: Agent) -> None:
    await agent.register("off", disabled=True)
    with pytest.raises(FailedPrecondition, match=r"mcpServers/nobody is not registered.*take it out") as refused:
        await agent.open("off", "nobody", "*")
    assert refused.value.reason == "RUNTIME_UNAVAILABLE"
    await agent.open("off", "mcpServers/monitoring", "*")
    session = await agent.client.sessions.get(agent.session)
    session.spec.mcp_servers.append("nobody")
    with pytest.raises(FailedPrecondition, match="mcpServers/nobody is not registered"):
        await agent.client.sessions.update(session, ["spec"])
    spec = agent_pb2.AgentSpec(model="demo", mcp_servers=["nobody"])
    await agent.client.agents.create("helper", spec)  # its users may have servers of their own
    agent.session = (await agent.client.sessions.create(agent="helper")).name
    await agent.say("/say 1")
    assert "mcpServers/nobody" in [message.mcp_server for message in agent.of("mcp_message")]


async def test_a_server_that_dies_in_a_call_costs_that_call_and_nothing_else(agent: Agent) -> None:
    await agent.register("odd", odd())
    await agent.open("odd", allow=["*"])
    await agent.say("/tool odd.die {}")
    assert agent.result.is_error
    assert "may or may not have happened" in agent.result.content
    await agent.say("/tool odd.ok {}")
    assert agent.result.content == "fine"


async def test_what_a_server_logs_during_a_call_becomes_events_but_a_flood_does_not(agent: Agent) -> None:
    await agent.register("odd", odd())
    await agent.open("odd", allow=["*"])
    await agent.say("/tool odd.log_flood {}")
    logs = agent.of("mcp_message")
    assert 1 <= len(logs) <= 1000
    assert {log.mcp_server for log in logs} == {"mcpServers/odd"}
    assert {log.call_id for log in logs} == {agent.result.call_id}
    await agent.say("/tool odd.progress_flood {}")
    assert 1 <= len(agent.of("tool_call_progress")) <= 100


async def test_a_call_has_the_deadline_of_its_server_and_may_have_happened(agent: Agent) -> None:
    await agent.register("odd", odd(), call_timeout=timedelta(seconds=1))
    await agent.open("odd", allow=["*"])
    await agent.say("/tool odd.hang {}")
    assert agent.result.is_error
    assert "did not answer 'hang' within 1 s" in agent.result.content
    assert "may or may not have happened" in agent.result.content


async def test_an_idempotent_call_that_came_to_no_end_may_simply_be_made_again(agent: Agent) -> None:
    await agent.register("odd", odd(), call_timeout=timedelta(seconds=1), idempotent_tools=["hang"])
    await agent.open("odd", allow=["*"])
    await agent.say("/tool odd.hang {}")
    assert "did not answer 'hang' within 1 s" in agent.result.content
    assert "may or may not have happened" not in agent.result.content


@pytest.mark.parametrize(
    ("mode", "offered", "left_out"), [("thousands", "tool255", "tool256"), ("heavy", "tool9", "tool10")]
)
async def test_a_server_with_more_tools_than_a_turn_may_have_is_offered_in_part_and_said_so(
    agent: Agent, mode: str, offered: str, left_out: str
) -> None:
    await agent.register("odd", odd(mode))
    await agent.open("odd", allow=["*"])
    await agent.say(f"/tool odd.{offered} {{}}")
    (told,) = agent.of("mcp_message")
    assert "not all tools of MCP server 'odd' are offered" in told.text
    assert [started.call.tool for started in agent.of("tool_call_started")] == [f"odd.{offered}"]
    await agent.say(f"/tool odd.{left_out} {{}}")
    assert "not all tools of MCP server 'odd' are offered" in agent.result.content
    await agent.open("odd", allow=["*"], tools=[f"odd.{left_out}"])
    await agent.say(f"/tool odd.{left_out} {{}}")
    assert [started.call.tool for started in agent.of("tool_call_started")] == [f"odd.{left_out}"]
    assert not agent.of("mcp_message")


async def test_a_cancelled_turn_cancels_its_call(agent: Agent) -> None:
    await agent.register("odd", odd())
    await agent.open("odd", allow=["*"])
    async with asyncio.timeout(LIMIT_SECONDS), agent.client.sessions.send(agent.session, "/tool odd.hang {}") as stream:
        async for event in stream:
            if event.HasField("tool_call_started"):
                await agent.client.sessions.cancel(event.turn)
    turn = await agent.client.sessions.turn(stream.turn)
    assert turn.state == event_pb2.TURN_STATE_CANCELLED
    assert (await agent.client.sessions.get(agent.session)).state == session_pb2.SESSION_STATE_ACTIVE


@pytest.mark.timeout(300)
async def test_a_server_killed_fifty_times_under_load_costs_no_session_and_runs_no_call_twice(
    agent: Agent, tmp_path: Path
) -> None:
    executions, mark = tmp_path / "executions", f"normal-{uuid4().hex}"
    executions.touch()
    stdio = odd(mark)
    stdio.environment["EXECUTIONS"] = str(executions)
    await agent.register("odd", stdio)
    results: list[event_pb2.ToolResult] = []
    stop = asyncio.Event()

    async def talk(number: int) -> None:
        one, call = Agent(agent.client), 0
        await one.open("odd", allow=["*"])
        while not stop.is_set():
            call += 1
            await one.say(f'/tool odd.count {{"id": "{number}-{call}", "seconds": 0.01}}')
            results.append(one.result)

    talks = [asyncio.create_task(talk(number)) for number in range(8)]
    for _ in range(50):
        before = answered(results)
        await until(partial(grown, results, before), seconds=60)
        for process in descendants():
            if mark in line_of(process) and "leash.py" not in " ".join(line_of(process)):
                process.kill()
    before = answered(results)
    await until(partial(grown, results, before), seconds=60)
    stop.set()
    await asyncio.gather(*talks)
    ran = executions.read_text().split()
    assert len(ran) == len(set(ran)), "a call was executed twice"
    assert {result.content for result in results if not result.is_error} <= set(ran)
    unsaid = ("may or may not have happened", "not available", "There is no tool")
    wrong = [one.content for one in results if one.is_error and not any(text in one.content for text in unsaid)]
    assert not wrong


def answered(results: Sequence[event_pb2.ToolResult]) -> int:
    """How many calls were answered."""
    return sum(not result.is_error for result in results)


async def grown(results: Sequence[event_pb2.ToolResult], before: int) -> bool:
    """Whether more calls were answered than before."""
    return answered(results) > before
