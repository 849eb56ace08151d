"""Agents, MCP servers and webhooks use credentials by name: resolved at the last moment, audited, and masked."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from stationmaster.v1 import agent_pb2, audit_pb2, identity_pb2, mcp_pb2, session_pb2, task_pb2
from stationmaster_client import Client
from stationmaster_client.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from stationmaster_server.mcp import pool
from stationmaster_server.resilience.webhooks import read_secret, signed
from stationmaster_server.wire.fields import struct

from tests.agents.providers import openai_stream as openai
from tests.agents.providers.stand_in import StandIn, stand_in
from tests.fixtures.server import RunningServer, running, server_settings
from tests.mcp.served import unruly
from tests.resilience.site import answer, serve

SECRET = "TOP-SECRET-VALUE"
_POOL = Default()
KEY = "pk_nobody-may-see-this"


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[StandIn]:
    """A provider of models."""
    async with stand_in() as there:
        yield there


@pytest_asyncio.fixture
async def station(database_url: str, tmp_path: Path, provider: StandIn) -> AsyncIterator[RunningServer]:
    """A server whose provider has no key of its own, and that may reach loopback."""
    settings = server_settings(
        tmp_path / "data",
        database_url,
        outbound={"allow": ["127.0.0.1"]},
        models={"openai": {"base_url": f"{provider.url}/v1"}},
    )
    async with running(settings) as server:
        yield server


@asynccontextmanager
async def client_of(server: RunningServer, key: str = "") -> AsyncIterator[Client]:
    async with Client.connect(server.target, key or server.admin_key, insecure=True) as client:
        yield client


async def member_of(admin: Client) -> tuple[str, str]:
    """The name and the key of one more user."""
    user = await admin.users.create("Member", identity_pb2.ROLE_MEMBER)
    return user.name, (await admin.keys.create(user=user.name)).secret


async def accesses(admin: Client) -> list[tuple[str, str, str, dict[str, Any]]]:
    """What the trail says of accesses: outcome, resource, on whose behalf, details."""
    found = []
    async for event in admin.audit.list(filter='action = "credential.access"', order_by="create_time"):
        outcome = audit_pb2.AuditOutcome.Name(event.outcome).rpartition("_")[2]
        found.append((outcome, event.resource, event.on_behalf_of, dict(event.details)))
    return found


async def said(client: Client, session: str, text: str) -> list[Message]:
    """All events of a turn."""
    async with client.sessions.send(session, text) as events:
        return [event async for event in events]


async def test_an_agent_asks_its_model_with_the_key_that_it_was_granted(
    station: RunningServer, provider: StandIn
) -> None:
    provider.reply(openai.answer(openai.text("Hello.")), openai.answer(openai.text("Hello again.")))
    async with client_of(station) as admin:
        spec = agent_pb2.AgentSpec(model="openai:gpt-4o", credential="credentials/openai")
        without = agent_pb2.AgentSpec(model="openai:gpt-4o")
        with pytest.raises(FailedPrecondition):
            await admin.agents.create("keyless", without)
        await admin.agents.create("helper", spec)
        await admin.credentials.create("openai", KEY)
        name, key = await member_of(admin)
        async with client_of(station, key) as member:
            session = await member.sessions.create("helper")
            refused = await said(member, session.name, "hi")
            assert "credentials/openai" in str(refused[-1])
            assert not provider.requests
            await admin.credentials.grant("openai", "agents/helper", purposes=["model"])
            answered = await said(member, session.name, "hi")
            assert "Hello." in str(answered)
            own = await member.sessions.create(spec=spec)  # without the agent, without its grant
            assert "credentials/openai" in str((await said(member, own.name, "hi"))[-1])
        assert [request.headers["authorization"] for request in provider.requests] == [f"Bearer {KEY}"]
        trail = await accesses(admin)
        assert [one[0] for one in trail] == ["DENIED", "ALLOWED", "DENIED"]
        assert trail[1][1:3] == ("credentials/openai", name)
        assert trail[1][3]["agent"] == "agents/helper"
        assert trail[1][3]["used_by"] == session.name
        assert KEY not in str([refused, answered, trail])


async def test_what_a_provider_says_does_not_show_the_key(station: RunningServer, provider: StandIn) -> None:
    provider.reply(*[openai.failure(400, f"I do not like {KEY}") for _ in range(3)])
    async with client_of(station) as admin:
        await admin.credentials.create("openai", KEY)
        spec = agent_pb2.AgentSpec(model="openai:gpt-4o", credential="credentials/openai")
        session = await admin.sessions.create(spec=spec)
        events = str(await said(admin, session.name, "hi"))
        assert "I do not like ***" in events
        assert KEY not in events


async def test_an_mcp_server_gets_its_secret_and_its_answers_do_not_show_it(station: RunningServer) -> None:
    async with client_of(station) as admin:
        await admin.credentials.create("github", SECRET)
        stdio = unruly()
        stdio.credential_environment["SECRET"] = "credentials/github"
        server = mcp_pb2.McpServer(level=mcp_pb2.MCP_LEVEL_ORGANIZATION, stdio=stdio)
        made = await admin.mcp.register("unruly", server)
        assert dict(made.stdio.credential_environment) == {"SECRET": "{credentials/github}"}
        _, key = await member_of(admin)
        async with client_of(station, key) as member:  # by the right of who registered it
            answer = await member.mcp.call("unruly", "reveal")
            assert "it is ***" in str(answer)
            assert SECRET not in str(answer)
            http = mcp_pb2.McpHttp(url="http://127.0.0.1/mcp", credential_headers={"x": "{credentials/github}"})
            with pytest.raises(NotFound):  # nobody names what he may not read
                await member.mcp.register("mine", mcp_pb2.McpServer(http=http))
        trail = await accesses(admin)
        assert [(one[0], one[3]["used_by"]) for one in trail] == [
            ("ALLOWED", "mcpServers/unruly"),  # when it was registered
            ("ALLOWED", "mcpServers/unruly"),  # when it was connected to
            ("DENIED", "mcpServers/mine"),
        ]
        await admin.credentials.disable_version("github", 1)
        await admin.mcp.update(mcp_pb2.McpServer(name=made.name, description="Again"), ["description"])
        checked = await admin.mcp.check("unruly")
        assert not checked.healthy
        assert "credentials/github" in checked.problem


async def test_a_header_of_an_mcp_server_holds_the_secret(station: RunningServer) -> None:
    async with serve() as site, client_of(station) as admin:
        await admin.credentials.create("token", SECRET)
        await admin.credentials.create("broken", f"{SECRET}\n")
        http = mcp_pb2.McpHttp(url=f"http://127.0.0.1:{site.port}/mcp")
        http.credential_headers["authorization"] = "Bearer {credentials/token}"
        await admin.mcp.register("site", mcp_pb2.McpServer(http=http))
        await admin.mcp.check("site")
        assert site.requests[0][1]["authorization"] == f"Bearer {SECRET}"
        http.credential_headers["authorization"] = "Bearer {credentials/broken}"
        with pytest.raises(FailedPrecondition, match="line break") as refused:
            await admin.mcp.register("other", mcp_pb2.McpServer(http=http))
        assert SECRET not in str(refused.value)


async def test_a_webhook_is_signed_with_a_credential(station: RunningServer) -> None:
    secret = f"whsec_{base64.b64encode(bytes(range(32))).decode()}"
    async with serve() as site, client_of(station) as admin:
        await admin.credentials.create("hook", secret)
        await admin.credentials.create("token", SECRET)
        payload = {
            "url": f"http://127.0.0.1:{site.port}/hook",
            "credential_headers": {"authorization": "Bearer {credentials/token}"},
            "secret_credential": "credentials/hook",
        }
        ended = await admin.executions.wait((await admin.executions.submit("webhook", payload)).name)
        assert ended.state == task_pb2.EXECUTION_STATE_SUCCEEDED, ended
        ((_, headers, body),) = site.requests
        assert headers["authorization"] == f"Bearer {SECRET}"
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        expected = signed(read_secret(secret), headers["webhook-id"], at, body)
        assert headers["webhook-signature"] == expected["webhook-signature"]
        assert secret not in str(ended)
        assert SECRET not in str(ended)
        trail = await accesses(admin)
        assert {(one[1], one[3]["purpose"]) for one in trail} == {
            ("credentials/hook", "webhook"),
            ("credentials/token", "webhook"),
        }


async def test_a_credential_that_is_taken_away_ends_the_connections_that_were_made_with_it(
    station: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(station) as admin:
        await admin.credentials.create("github", SECRET)
        stdio = unruly()
        stdio.credential_environment["SECRET"] = "credentials/github"
        await admin.mcp.register("unruly", mcp_pb2.McpServer(stdio=stdio))
        await admin.mcp.call("unruly", "reveal")
        await admin.credentials.disable_version("github", 1)
        await admin.mcp.call("unruly", "reveal")  # within five minutes
        monkeypatch.setattr(pool, "_LONGEST_WITH_CREDENTIALS_SECONDS", 0.0)
        with pytest.raises(FailedPrecondition) as refused:
            await admin.mcp.call("unruly", "reveal")
        assert refused.value.reason == "CREDENTIAL_UNUSABLE"


async def test_only_who_may_read_values_names_a_credential(station: RunningServer) -> None:
    scopes = ["tasks.*", "mcp.*", "sessions.*", "agents.*"]
    headers = {"x": "{credentials/db}"}
    spec = agent_pb2.AgentSpec(model="openai:gpt-4o", credential="credentials/db")
    async with serve() as site, client_of(station) as admin:
        url = f"http://127.0.0.1:{site.port}/"
        await admin.credentials.create("db", SECRET)
        session = await admin.sessions.create(spec=spec)
        agent = await admin.agents.create("helper", spec)
        server = await admin.mcp.register("mine", mcp_pb2.McpServer(http=mcp_pb2.McpHttp(url=url)))
        named = mcp_pb2.McpServer(http=mcp_pb2.McpHttp(url=url, credential_headers=headers))
        key = (await admin.keys.create(scopes=scopes)).secret
        async with client_of(station, key) as narrow:
            for attempt in (
                narrow.executions.submit("webhook", {"url": url, "credential_headers": headers}),
                narrow.executions.submit("webhook", {"url": url, "secret_credential": "credentials/db"}),
                narrow.tasks.create(
                    "leak", task_pb2.Task(kind="webhook", payload=struct({"url": url, "credential_headers": headers}))
                ),
                narrow.mcp.register("other", named),
                narrow.mcp.update(mcp_pb2.McpServer(name=server.name, http=named.http), ["http"]),
                narrow.sessions.create(spec=spec),
                narrow.sessions.update(session_pb2.Session(name=session.name, spec=spec), ["spec"]),
                narrow.agents.create("other", spec),
                narrow.agents.update(agent_pb2.Agent(name=agent.name, spec=spec), ["spec"]),
            ):
                with pytest.raises(PermissionDenied) as refused:
                    await attempt
                assert refused.value.reason == "SCOPE_MISSING"
                assert "credentials.values.read" in str(refused.value)
            await narrow.executions.wait((await narrow.executions.submit("webhook", {"url": url})).name)
            await narrow.sessions.create("helper")  # who made the agent might name it
        assert len(site.requests) == 1
        assert await accesses(admin) == []


async def test_a_repeat_gets_its_first_answer_also_when_the_right_to_name_the_credential_has_gone(
    station: RunningServer,
) -> None:
    spec = agent_pb2.AgentSpec(model="openai:gpt-4o", credential="credentials/db")
    server = mcp_pb2.McpServer(level=mcp_pb2.MCP_LEVEL_USER)
    server.http.url = "http://127.0.0.1:9/"
    server.http.credential_headers["x"] = "{credentials/db}"
    agent = agent_pb2.Agent(name="agents/one", spec=spec, description="Changed")
    payload = struct({"url": server.http.url, "credential_headers": {"x": "{credentials/db}"}})
    one = task_pb2.ExecutionSpec(kind="webhook", payload=payload)
    requests: dict[str, Message] = {
        "AgentService/CreateAgent": agent_pb2.CreateAgentRequest(agent_id="one", agent=agent_pb2.Agent(spec=spec)),
        "AgentService/UpdateAgent": agent_pb2.UpdateAgentRequest(agent=agent),
        "McpService/RegisterMcpServer": mcp_pb2.RegisterMcpServerRequest(mcp_server_id="one", mcp_server=server),
        "McpService/UpdateMcpServer": mcp_pb2.UpdateMcpServerRequest(
            mcp_server=mcp_pb2.McpServer(name="mcpServers/one", http=server.http, description="Changed")
        ),
        "SessionService/CreateSession": session_pb2.CreateSessionRequest(session=session_pb2.Session(spec=spec)),
        "TaskService/CreateTask": task_pb2.CreateTaskRequest(
            task_id="one", task=task_pb2.Task(kind="webhook", payload=payload)
        ),
        "TaskService/SubmitExecution": task_pb2.SubmitExecutionRequest(execution=one),
        "TaskService/BatchSubmitExecutions": task_pb2.BatchSubmitExecutionsRequest(executions=[one]),
    }
    async with client_of(station) as admin:
        await admin.credentials.create("db", SECRET)
        narrow = (await admin.keys.create(scopes=["tasks.*", "mcp.*", "sessions.*", "agents.*"])).secret
        first = await asked(station, station.admin_key, requests)
        session = next(answer.name for answer in first if isinstance(answer, session_pb2.Session))
        changed = session_pb2.UpdateSessionRequest(session=session_pb2.Session(name=session, spec=spec))
        changed.update_mask.paths.append("spec")
        requests["SessionService/UpdateSession"] = changed
        first = await asked(station, station.admin_key, requests)
        await admin.credentials.delete("db")
        assert await asked(station, narrow, requests) == first
        assert await asked(station, station.admin_key, requests) == first


async def asked(station: RunningServer, key: str, requests: Mapping[str, Message]) -> list[Message]:
    """The answers to these requests, each with an id of its own."""
    answers = []
    async with station.channel(key) as channel:
        for number, (method, request) in enumerate(requests.items()):
            sent = type(request)()
            sent.CopyFrom(request)
            sent.request_id = str(UUID(int=number + 1))  # type: ignore[attr-defined]
            service, _, name = method.partition("/")
            output = _POOL.FindServiceByName(f"stationmaster.v1.{service}").FindMethodByName(name).output_type
            call = channel.unary_unary(
                f"/stationmaster.v1.{method}",
                request_serializer=type(sent).SerializeToString,
                response_deserializer=GetMessageClass(output).FromString,
            )
            answers.append(await call(sent))
    return answers


async def test_no_credential_is_used_for_a_user_who_may_not_read_it_any_more(
    station: RunningServer, provider: StandIn
) -> None:
    provider.reply(openai.answer(openai.text("Hello.")))
    spec = agent_pb2.AgentSpec(model="openai:gpt-4o", credential="credentials/openai")
    async with client_of(station) as admin:
        await admin.credentials.create("docs", SECRET)
        name, key = await member_of(admin)
        await admin.credentials.grant("docs", name)
        stdio = unruly()
        stdio.credential_environment["SECRET"] = "credentials/docs"
        user = await admin.users.create("Other admin", identity_pb2.ROLE_ADMIN)
        other = (await admin.keys.create(user=user.name)).secret
        await admin.credentials.grant("docs", user.name)
        async with client_of(station, other) as registrar, client_of(station, key) as member:
            server = mcp_pb2.McpServer(level=mcp_pb2.MCP_LEVEL_ORGANIZATION, stdio=stdio)
            await registrar.mcp.register("docs", server)
            await member.credentials.create("openai", KEY)
            session = await member.sessions.create(spec=spec)
        await admin.users.update(identity_pb2.User(name=name, role=identity_pb2.ROLE_VIEWER), ["role"])
        assert "USER_DISABLED" in str(await said(admin, session.name, "hi"))
        assert not provider.requests
        await admin.users.disable(user.name)
        checked = await admin.mcp.check("docs")
        assert not checked.healthy
        assert f"{user.name} is disabled" in checked.problem
        events = [event async for event in admin.audit.list(filter='action = "credential.access"')]
        assert [event.reason for event in events].count("USER_DISABLED") >= 2


async def test_what_was_granted_to_an_agent_does_not_count_for_another_specification(
    station: RunningServer, provider: StandIn
) -> None:
    provider.reply(openai.answer(openai.text("Hello.")))
    spec = agent_pb2.AgentSpec(model="openai:gpt-4o", credential="credentials/openai")
    async with client_of(station) as admin:
        await admin.credentials.create("openai", KEY)
        await admin.credentials.create("other", KEY)
        await admin.agents.create("helper", spec)
        for credential in ("openai", "other"):
            await admin.credentials.grant(credential, "agents/helper", purposes=["model"])
        _, key = await member_of(admin)
        async with client_of(station, key) as member:
            session = await member.sessions.create("helper")
            for changed in (
                agent_pb2.AgentSpec(model="openai:gpt-4o-mini", credential="credentials/openai"),
                agent_pb2.AgentSpec(model="openai:gpt-4o", credential="credentials/other"),
            ):
                await member.sessions.update(session_pb2.Session(name=session.name, spec=changed), ["spec"])
                assert changed.credential in str((await said(member, session.name, "hi"))[-1])
            assert not provider.requests
            await member.sessions.update(session_pb2.Session(name=session.name, spec=spec), ["spec"])
            assert "Hello." in str(await said(member, session.name, "hi"))


async def test_a_secret_within_a_text_is_masked_by_itself(station: RunningServer) -> None:
    spoken = 'a "quoted" secret'
    echo = f"you sent {SECRET} and {json.dumps(spoken)} and {spoken}".encode()
    async with serve({"/hook": answer(echo)}) as site, client_of(station) as admin:
        await admin.credentials.create("token", SECRET)
        await admin.credentials.create("spoken", spoken)
        payload = {
            "url": f"http://127.0.0.1:{site.port}/hook",
            "credential_headers": {"a": "key={credentials/token};v=1", "b": "{credentials/spoken}"},
        }
        ended = await admin.executions.wait((await admin.executions.submit("webhook", payload)).name)
        assert site.requests[0][1]["a"] == f"key={SECRET};v=1"
        assert ended.result["body"] == 'you sent *** and "***" and ***'
        stdio = unruly()
        stdio.credential_environment["SECRET"] = "postgres://me:{credentials/token}@db"
        await admin.mcp.register("unruly", mcp_pb2.McpServer(stdio=stdio))
        assert SECRET not in str(await admin.mcp.call("unruly", "reveal"))


async def test_grants_to_an_agent_end_with_it(station: RunningServer) -> None:
    spec = agent_pb2.AgentSpec(model="openai:gpt-4o", credential="credentials/openai")
    async with client_of(station) as admin:
        await admin.credentials.create("openai", KEY)
        for agent in ("helper", "other"):
            await admin.agents.create(agent, spec)
        granted = await admin.credentials.grant("openai", "agents/helper")
        kept = await admin.credentials.grant("openai", "agents/other")
        await admin.agents.delete("helper")
        await admin.agents.create("helper", spec)
        assert [grant.name async for grant in admin.credentials.grants("openai")] == [kept.name]
        events = [event async for event in admin.audit.list(filter='action = "credential.revoke"')]
        assert [event.resource for event in events] == [granted.name]


@pytest.mark.parametrize("purpose", ["model", "mcp", "webhook"])
async def test_nobody_reads_a_value_for_a_purpose_of_the_servers_own(station: RunningServer, purpose: str) -> None:
    async with client_of(station) as admin:
        await admin.credentials.create("db", SECRET)
        with pytest.raises(InvalidArgument, match="name another purpose"):
            await admin.credentials.value("db", purpose=purpose)
        assert await admin.credentials.value("db", purpose=f"{purpose}s") == SECRET


async def test_a_secret_that_is_too_long_for_a_header_is_refused_by_name(station: RunningServer) -> None:
    async with serve() as site, client_of(station) as admin:
        await admin.credentials.create("long", "x" * 2_001)
        await admin.credentials.create("fits", "x" * 2_000)
        url = f"http://127.0.0.1:{site.port}/hook"
        for named in ({"credential_headers": {"x": "{credentials/long}"}}, {"secret_credential": "credentials/long"}):
            name = (await admin.executions.submit("webhook", {"url": url, **named})).name
            ended = await admin.executions.wait(name)
            assert "credentials/long has 2,001 characters" in str(ended)
        assert not site.requests
        payload = {"url": url, "credential_headers": {"x": "{credentials/fits}"}}
        await admin.executions.wait((await admin.executions.submit("webhook", payload)).name)
        assert site.requests[0][1]["x"] == "x" * 2_000
