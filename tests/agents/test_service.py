"""AgentService: agents are made, read, changed and deleted, by their rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import agent_pb2 as pb
from stationmaster_server.agents.model import AgentSpec, NewAgent, RuntimeName
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.providers import Protocol, Providers, ProviderSettings
from stationmaster_server.agents.service import AgentService
from stationmaster_server.agents.servicer import AgentServicer
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    StationmasterError,
)
from stationmaster_server.mcp.registry import Registry
from stationmaster_server.sessions.store import sessions_using
from stationmaster_server.wire.caller import calling
from stationmaster_server.wire.paging import PageTokens

from tests.fixtures.database import make_tenant
from tests.sessions.builders import insert, make_caller, repeating

NO_CONTEXT: Any = None


@pytest_asyncio.fixture
async def audit(database: Database) -> AsyncIterator[AuditLog]:
    """The trail."""
    log = AuditLog(database)
    await log.start()
    yield log
    await log.close()


def no_servers(database: Database) -> Registry:
    """A registry without built-in servers."""
    return Registry(database, lambda organization: {})


@pytest.fixture
def service(database: Database, audit: AuditLog) -> AgentService:
    """The service of a server with one provider."""
    prices = Prices()
    providers = Providers([ProviderSettings("anthropic", Protocol.ANTHROPIC, "key")], prices)
    tools, servers = builtin_toolbox(), no_servers(database)
    return AgentService(database, audit, providers, {RuntimeName.MODEL}, sessions_using, tools, servers)


@pytest.fixture
def servicer(service: AgentService) -> AgentServicer:
    """Its servicer."""
    return AgentServicer(service, PageTokens(b"secret"))


@pytest.fixture
def caller(tenant: Tenant) -> Caller:
    """Somebody of the organization."""
    return make_caller(tenant)


def new_agent(model: str = "demo", **fields: Any) -> pb.Agent:
    return pb.Agent(display_name="Helper", description="Helps.", spec=pb.AgentSpec(model=model, **fields))


async def create(servicer: AgentServicer, agent_id: str = "helper", **fields: Any) -> pb.Agent:
    request = pb.CreateAgentRequest(agent_id=agent_id, agent=new_agent(**fields))
    return await servicer.CreateAgent(request, NO_CONTEXT)


async def audited(database: Database, caller: Caller) -> list[tuple[str, str]]:
    async with database.tenant(caller.tenant, read=True) as tx:
        rows = await tx.fetch("SELECT action, resource FROM audit_events ORDER BY id")
    return [(row["action"], row["resource"]) for row in rows]


async def test_an_agent_is_made_read_changed_and_deleted(
    servicer: AgentServicer, database: Database, caller: Caller
) -> None:
    with calling(caller):
        made = await create(servicer, tools=["files.*"], text="Be kind.")
        assert (made.name, made.display_name, made.spec.text) == ("agents/helper", "Helper", "Be kind.")
        assert await servicer.GetAgent(pb.GetAgentRequest(name=made.name), NO_CONTEXT) == made
        made.display_name, made.description = "Assistant", "not in the mask"
        changed = await servicer.UpdateAgent(
            pb.UpdateAgentRequest(agent=made, update_mask=FieldMask(paths=["display_name"])), NO_CONTEXT
        )
        assert (changed.display_name, changed.description) == ("Assistant", "Helps.")
        assert changed.etag != made.etag
        assert changed.update_time.ToDatetime() > made.update_time.ToDatetime()
        request = pb.DeleteAgentRequest(name=made.name, etag=changed.etag)
        assert await servicer.DeleteAgent(request, NO_CONTEXT) == Empty()
        with pytest.raises(NotFound):
            await servicer.GetAgent(pb.GetAgentRequest(name=made.name), NO_CONTEXT)
    assert await audited(database, caller) == [
        ("agent.create", "agents/helper"),
        ("agent.update", "agents/helper"),
        ("agent.delete", "agents/helper"),
    ]


async def test_an_id_is_taken_once(servicer: AgentServicer, caller: Caller) -> None:
    with calling(caller):
        first = await create(servicer)
        with pytest.raises(AlreadyExists):
            await create(servicer)
        await servicer.DeleteAgent(pb.DeleteAgentRequest(name=first.name), NO_CONTEXT)
        # The id may be used again, the uid is another one.
        assert (await create(servicer)).uid != first.uid


async def test_another_organization_sees_and_changes_nothing(
    servicer: AgentServicer, database: Database, caller: Caller
) -> None:
    with calling(caller):
        made = await create(servicer)
    with calling(make_caller(await make_tenant(database))):
        for work in (
            servicer.GetAgent(pb.GetAgentRequest(name=made.name), NO_CONTEXT),
            servicer.UpdateAgent(pb.UpdateAgentRequest(agent=made), NO_CONTEXT),
            servicer.DeleteAgent(pb.DeleteAgentRequest(name=made.name), NO_CONTEXT),
        ):
            with pytest.raises(NotFound, match="Agent 'agents/helper' was not found"):
                await work
        assert not (await servicer.ListAgents(pb.ListAgentsRequest(), NO_CONTEXT)).agents
        await create(servicer)


@pytest.mark.parametrize(
    ("spec", "reason", "why"),
    [
        (pb.AgentSpec(model="openai:gpt-5"), Reason.MODEL_UNAVAILABLE, "provider 'openai' is not configured"),
        (pb.AgentSpec(model="gpt-5"), Reason.MODEL_UNAVAILABLE, "there are: demo, anthropic:NAME"),
        (pb.AgentSpec(model="demo", runtime=pb.RUNTIME_CLAUDE), Reason.RUNTIME_UNAVAILABLE, "not installed"),
        (pb.AgentSpec(model="dmeo"), Reason.MODEL_UNAVAILABLE, "did you mean demo"),
        (pb.AgentSpec(model="demo", prompt="greeting@production"), Reason.PROMPT_MISSING, "no prompts/greeting"),
        (pb.AgentSpec(model="demo", tools=["db.query"]), Reason.RUNTIME_UNAVAILABLE, "no tool of this server"),
        (pb.AgentSpec(model="demo", memory=pb.Memory(summarize=True)), Reason.RUNTIME_UNAVAILABLE, "no summaries yet"),
    ],
)
@pytest.mark.parametrize("validate_only", [False, True])
async def test_what_this_server_cannot_run_is_refused(
    servicer: AgentServicer, caller: Caller, spec: pb.AgentSpec, reason: Reason, why: str, validate_only: bool
) -> None:
    request = pb.CreateAgentRequest(agent_id="helper", agent=pb.Agent(spec=spec), validate_only=validate_only)
    with calling(caller), pytest.raises(FailedPrecondition, match=why) as refused:
        await servicer.CreateAgent(request, NO_CONTEXT)
    assert refused.value.reason is reason
    assert refused.value.violations


async def test_a_stale_etag_is_refused(servicer: AgentServicer, caller: Caller) -> None:
    with calling(caller):
        first = await create(servicer)
        await servicer.UpdateAgent(pb.UpdateAgentRequest(agent=replace_name(first, "Two")), NO_CONTEXT)
        for work in (
            servicer.UpdateAgent(pb.UpdateAgentRequest(agent=replace_name(first, "Three")), NO_CONTEXT),
            servicer.DeleteAgent(pb.DeleteAgentRequest(name=first.name, etag=first.etag), NO_CONTEXT),
        ):
            with pytest.raises(Aborted) as refused:
                await work
            assert refused.value.reason is Reason.ETAG_MISMATCH


async def test_an_agent_that_is_changed_back_has_another_etag(servicer: AgentServicer, caller: Caller) -> None:
    with calling(caller):
        first = await create(servicer)
        second = await servicer.UpdateAgent(pb.UpdateAgentRequest(agent=replace_name(first, "Two")), NO_CONTEXT)
        third = await servicer.UpdateAgent(pb.UpdateAgentRequest(agent=replace_name(second, "Helper")), NO_CONTEXT)
    assert third.spec == first.spec
    assert len({first.etag, second.etag, third.etag}) == 3


def replace_name(agent: pb.Agent, display_name: str) -> pb.Agent:
    return pb.Agent(name=agent.name, etag=agent.etag, display_name=display_name)


async def test_validation_alone_changes_nothing(servicer: AgentServicer, database: Database, caller: Caller) -> None:
    with calling(caller):
        request = pb.CreateAgentRequest(agent_id="helper", agent=new_agent(), validate_only=True)
        assert (await servicer.CreateAgent(request, NO_CONTEXT)).name == "agents/helper"
        made = await create(servicer)
        with pytest.raises(AlreadyExists):
            await servicer.CreateAgent(request, NO_CONTEXT)
        update = pb.UpdateAgentRequest(agent=replace_name(made, "Two"), validate_only=True)
        assert (await servicer.UpdateAgent(update, NO_CONTEXT)).display_name == "Two"
        assert await servicer.GetAgent(pb.GetAgentRequest(name=made.name), NO_CONTEXT) == made
    assert await audited(database, caller) == [("agent.create", "agents/helper")]


async def test_an_unknown_field_in_the_mask_is_refused(servicer: AgentServicer, caller: Caller) -> None:
    with calling(caller):
        made = await create(servicer)
        for path in ("uid", "nonsense", "spec.model"):
            request = pb.UpdateAgentRequest(agent=made, update_mask=FieldMask(paths=[path]))
            with pytest.raises(InvalidArgument) as refused:
                await servicer.UpdateAgent(request, NO_CONTEXT)
            assert refused.value.reason is Reason.INVALID_UPDATE_MASK
        without = pb.UpdateAgentRequest(agent=pb.Agent(name=made.name), update_mask=FieldMask(paths=["spec"]))
        with pytest.raises(InvalidArgument):
            await servicer.UpdateAgent(without, NO_CONTEXT)


async def test_a_repeated_request_gets_the_first_answer(
    servicer: AgentServicer, database: Database, caller: Caller
) -> None:
    with calling(caller):
        create_request = pb.CreateAgentRequest(agent_id="helper", agent=new_agent(), request_id=str(new_id()))
        first = await servicer.CreateAgent(create_request, NO_CONTEXT)
        assert await servicer.CreateAgent(create_request, NO_CONTEXT) == first
        update = pb.UpdateAgentRequest(agent=replace_name(first, "Two"), request_id=str(new_id()))
        second = await servicer.UpdateAgent(update, NO_CONTEXT)
        assert await servicer.UpdateAgent(update, NO_CONTEXT) == second
        delete = pb.DeleteAgentRequest(name=first.name, request_id=str(new_id()))
        await servicer.DeleteAgent(delete, NO_CONTEXT)
        await servicer.DeleteAgent(delete, NO_CONTEXT)
        other = pb.CreateAgentRequest(agent_id="other", agent=new_agent(), request_id=create_request.request_id)
        with pytest.raises(InvalidArgument) as refused:
            await servicer.CreateAgent(other, NO_CONTEXT)
    assert refused.value.reason is Reason.REQUEST_ID_REUSED
    assert len(await audited(database, caller)) == 3


async def test_an_agent_in_use_is_deleted_by_force_only(
    servicer: AgentServicer, database: Database, caller: Caller
) -> None:
    with calling(caller):
        made = await create(servicer)
        await insert(database, caller.tenant, agent_id="helper")
        with pytest.raises(FailedPrecondition, match="1 sessions are not terminated") as refused:
            await servicer.DeleteAgent(pb.DeleteAgentRequest(name=made.name), NO_CONTEXT)
        assert refused.value.reason is Reason.AGENT_IN_USE
        await servicer.DeleteAgent(pb.DeleteAgentRequest(name=made.name, force=True), NO_CONTEXT)


async def test_agents_are_listed_in_pages_by_filter_and_order(servicer: AgentServicer, caller: Caller) -> None:
    with calling(caller):
        for agent_id in ("c", "a", "b"):
            await create(servicer, agent_id)
        await create(servicer, "d", model="anthropic:claude-sonnet-5")

        async def listed(**arguments: Any) -> list[str]:
            names: list[str] = []
            token = ""
            while True:
                request = pb.ListAgentsRequest(page_size=2, page_token=token, **arguments)
                page = await servicer.ListAgents(request, NO_CONTEXT)
                names += [agent.name.removeprefix("agents/") for agent in page.agents]
                token = page.next_page_token
                if not token:
                    return names

        assert await listed() == ["d", "b", "a", "c"]
        assert await listed(order_by="agent_id") == ["a", "b", "c", "d"]
        assert await listed(filter='model = "demo"', order_by="agent_id desc") == ["c", "b", "a"]
        with pytest.raises(InvalidArgument):
            await listed(filter="colour = 1")


async def test_models_are_listed_with_their_prices(servicer: AgentServicer, caller: Caller) -> None:
    with calling(caller):
        models: dict[str, pb.Model] = {}
        token = ""
        while True:
            page = await servicer.ListModels(pb.ListModelsRequest(page_size=7, page_token=token), NO_CONTEXT)
            assert len(page.models) <= 7
            models.update({model.model_id: model for model in page.models})
            token = page.next_page_token
            if not token:
                break
        demo, claude, gpt = models["demo"], models["anthropic:claude-sonnet-5"], models["openai:gpt-5"]
        assert demo.available
        assert (demo.HasField("input_micros_per_million_tokens"), demo.input_micros_per_million_tokens) == (True, 0)
        assert (claude.available, claude.input_micros_per_million_tokens) == (True, 2_000_000)
        assert claude.context_window_tokens > 0
        assert not gpt.available
        assert "not configured" in gpt.unavailable_reason
        only = await servicer.ListModels(pb.ListModelsRequest(filter='provider = "demo"'), NO_CONTEXT)
        assert [model.model_id for model in only.models] == ["demo"]
        with pytest.raises(InvalidArgument) as refused:
            await servicer.ListModels(pb.ListModelsRequest(filter="price < 3"), NO_CONTEXT)
        assert refused.value.reason is Reason.INVALID_FILTER


async def test_a_session_resolves_an_agent_to_its_specification(
    service: AgentService, servicer: AgentServicer, database: Database, caller: Caller
) -> None:
    with calling(caller):
        await create(servicer, tools=["files.*"])
    organization_id = caller.tenant.organization_id
    async with database.tenant(caller.tenant, read=True) as tx:
        assert (await service.resolve(tx, organization_id, "helper")).tools == ("files.*",)
        with pytest.raises(NotFound):
            await service.resolve(tx, organization_id, "none")


async def test_two_changes_at_once_do_not_undo_each_other(servicer: AgentServicer, caller: Caller) -> None:
    with calling(caller):
        made = await create(servicer)
        answers = await asyncio.gather(
            *(
                servicer.UpdateAgent(pb.UpdateAgentRequest(agent=replace_name(made, str(n))), NO_CONTEXT)
                for n in range(4)
            ),
            return_exceptions=True,
        )
    refused = [answer for answer in answers if isinstance(answer, StationmasterError)]
    assert {error.reason for error in refused} == {Reason.ETAG_MISMATCH}
    assert len(refused) == 3


async def test_a_repeat_has_its_first_answer_though_the_settings_changed_meanwhile(
    service: AgentService, database: Database, audit: AuditLog, caller: Caller
) -> None:
    tools, servers = builtin_toolbox(), no_servers(database)
    changed = AgentService(database, audit, Providers([], Prices()), set(), sessions_using, tools, servers)
    new = NewAgent("helper", AgentSpec(model="demo"), "Helper")
    creating, updating = repeating(caller), repeating(caller)
    created = await service.create(creating, new)
    updated = await service.update(updating, "helper", {"spec": AgentSpec(model="demo", instructions="Help.")})

    assert await changed.create(creating, new) == created
    assert await changed.update(updating, "helper", {"spec": AgentSpec(model="demo")}) == updated
    with pytest.raises(FailedPrecondition):
        await changed.update(caller, "helper", {"spec": AgentSpec(model="demo")})


async def test_a_pattern_that_no_tool_matches_is_refused(service: AgentService, caller: Caller) -> None:
    with pytest.raises(
        FailedPrecondition, match=r"no tool of this server is called fiels\.\*; there are: .*files\.read"
    ):
        await service.create(
            caller, NewAgent("helper", AgentSpec(model="demo", tools=("files.*", "fiels.*")), "Helper")
        )
