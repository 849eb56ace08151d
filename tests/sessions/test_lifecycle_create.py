"""CreateSession: all or nothing."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from stationmaster_server.agents.model import AgentSpec, Effect, Limits, ToolPolicy
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, ResourceExhausted
from stationmaster_server.identity import quota_store
from stationmaster_server.identity.model import Quota
from stationmaster_server.sessions.model import NewSession, Session, SessionState

from tests.sessions.builders import SPEC, repeating
from tests.sessions.conftest import OneAgent, Rooms

NEW = NewSession(spec=SPEC)


async def count(database: Database, table: str, where: str = "true", *args: object) -> int:
    async with database.system() as tx:
        return int(await tx.fetchval(f"SELECT count(*) FROM {table} WHERE {where}", *args))


async def limit_sessions(rooms: Rooms, caller: Caller, limit: int) -> None:
    tenant = caller.tenant
    async with rooms.database.system() as tx:
        await quota_store.put_quota(tx, tenant.organization_id, Quota(tenant.user_id, max_concurrent_sessions=limit))


async def test_a_created_session_has_all_that_was_asked_for(rooms: Rooms, caller: Caller) -> None:
    new = NewSession(
        display_name="Birds",
        spec=replace(SPEC, instructions="be kind"),
        tool_policies=(ToolPolicy("files.*", Effect.ASK),),
        limits=Limits(max_tokens_per_turn=5, max_turn_duration=timedelta(seconds=9)),
        labels={"team": "blue"},
        idle_timeout=timedelta(minutes=5),
    )

    created = await rooms.sessions.create(caller, new)

    assert created == await rooms.sessions.get(caller, created.id)
    assert created.state is SessionState.ACTIVE
    assert created.user_id == caller.tenant.user_id
    asked = (new.display_name, new.spec, new.tool_policies, new.limits, new.labels, new.idle_timeout)
    got = (
        created.display_name,
        created.spec,
        created.tool_policies,
        created.limits,
        created.labels,
        created.idle_timeout,
    )
    assert got == asked


async def test_a_session_keeps_the_specification_of_its_agent(rooms: Rooms, caller: Caller) -> None:
    created = await rooms.sessions.create(caller, NewSession(agent_id="helper"))

    assert (created.agent_id, created.spec) == ("helper", AgentSpec(model="demo", instructions="help"))


async def test_creation_makes_workspace_stream_audit_row_and_takes_quota(rooms: Rooms, caller: Caller) -> None:
    created = await rooms.sessions.create(caller, NEW)

    folder = rooms.workspaces / str(created.id)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    events = await rooms.services.log.read(caller.tenant, created.id, 0, 10)
    assert [(event.sequence, event.kind) for event in events] == [(1, "session_created")]
    assert created.last_sequence == 1
    name = f"sessions/{created.id}"
    assert await count(rooms.database, "audit_events", "resource = $1 AND action = 'session.create'", name) == 1
    async with rooms.database.system() as tx:
        usage = await quota_store.get_usage(tx, caller.tenant.organization_id, caller.tenant.user_id)
    assert usage.concurrent_sessions == 1


async def nothing_is_left(rooms: Rooms) -> bool:
    tables = ("sessions", "streams", "events", "quota_usage", "request_ids")
    rows = [await count(rooms.database, table) for table in tables]
    return not any(rows) and not list(rooms.workspaces.iterdir())


@pytest.mark.parametrize("table", ["events", "audit_events", "quota_usage"])
async def test_a_creation_that_fails_anywhere_leaves_nothing(
    rooms: Rooms, caller: Caller, administrator_url: str, table: str
) -> None:
    await alter(administrator_url, f"ALTER TABLE {table} RENAME TO hidden")

    with pytest.raises(asyncpg.UndefinedTableError):
        await rooms.sessions.create(repeating(caller), NEW)

    await alter(administrator_url, f"ALTER TABLE hidden RENAME TO {table}")
    assert await nothing_is_left(rooms)


async def alter(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()


async def test_an_unknown_agent_leaves_nothing(rooms: Rooms, caller: Caller) -> None:
    with pytest.raises(NotFound):
        await rooms.sessions.create(caller, NewSession(agent_id="nobody"))

    assert await nothing_is_left(rooms)


async def test_a_model_that_cannot_run_is_refused_at_creation(rooms: Rooms, caller: Caller) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await rooms.sessions.create(caller, NewSession(spec=AgentSpec(model="unknown")))

    assert caught.value.reason is Reason.MODEL_UNAVAILABLE
    assert await nothing_is_left(rooms)


async def test_racing_creations_never_pass_the_last_slot_together(rooms: Rooms, caller: Caller) -> None:
    await limit_sessions(rooms, caller, 3)

    answers = await asyncio.gather(*(rooms.sessions.create(caller, NEW) for _ in range(12)), return_exceptions=True)

    created = [answer for answer in answers if isinstance(answer, Session)]
    refused = [answer for answer in answers if isinstance(answer, ResourceExhausted)]
    assert (len(created), len(refused)) == (3, 9)
    assert {refusal.reason for refusal in refused} == {Reason.QUOTA_EXCEEDED}
    assert {folder.name for folder in rooms.workspaces.iterdir()} == {str(session.id) for session in created}
    assert await count(rooms.database, "sessions") == 3
    assert await count(rooms.database, "audit_events", "outcome = 'denied'") == 9


async def test_a_terminated_session_frees_its_slot(rooms: Rooms, caller: Caller) -> None:
    await limit_sessions(rooms, caller, 1)
    first = await rooms.sessions.create(caller, NEW)
    with pytest.raises(ResourceExhausted):
        await rooms.sessions.create(caller, NEW)

    await rooms.sessions.terminate(caller, first.id)

    assert (await rooms.sessions.create(caller, NEW)).state is SessionState.ACTIVE


async def test_a_repeated_request_id_gives_the_first_answer_and_does_nothing_else(rooms: Rooms, caller: Caller) -> None:
    repeated = repeating(caller)

    first = await rooms.sessions.create(repeated, NEW)
    second = await rooms.sessions.create(repeated, NEW)

    assert second == first
    assert await count(rooms.database, "sessions") == 1
    assert [folder.name for folder in rooms.workspaces.iterdir()] == [str(first.id)]


async def test_racing_repeats_of_a_request_id_create_one_session(rooms: Rooms, caller: Caller) -> None:
    repeated = repeating(caller)

    answers = await asyncio.gather(*(rooms.sessions.create(repeated, NEW) for _ in range(5)))

    assert len({answer.id for answer in answers}) == 1
    assert await count(rooms.database, "sessions") == 1
    assert len(list(rooms.workspaces.iterdir())) == 1


async def test_a_repeat_has_its_first_answer_though_the_model_is_served_no_more(
    rooms: Rooms, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeated = repeating(caller)
    first = await rooms.sessions.create(repeated, NEW)

    def refuse(agents: OneAgent, spec: AgentSpec) -> None:
        raise FailedPrecondition(Reason.MODEL_UNAVAILABLE, "the model is served no more")

    monkeypatch.setattr(OneAgent, "check", refuse)
    assert await rooms.sessions.create(repeated, NEW) == first
    with pytest.raises(FailedPrecondition):
        await rooms.sessions.create(caller, NEW)


async def test_a_request_id_with_another_request_is_refused(rooms: Rooms, caller: Caller) -> None:
    repeated = repeating(caller)
    await rooms.sessions.create(repeated, NEW)
    key: Any = repeated.request_key

    with pytest.raises(InvalidArgument) as caught:
        await rooms.sessions.create(replace(repeated, request_key=replace(key, fingerprint=b"other")), NEW)

    assert caught.value.reason is Reason.REQUEST_ID_REUSED
    assert await count(rooms.database, "sessions") == 1
