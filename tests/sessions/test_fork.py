"""ForkSession: a session of one's own from another's messages and specification."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from stationmaster_server.agents.model import AgentSpec, Effect, Limits, ToolPolicy
from stationmaster_server.agents.runtime import Text
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.errors import InvalidArgument, NotFound, ResourceExhausted
from stationmaster_server.identity import quota_store
from stationmaster_server.identity.model import Quota
from stationmaster_server.sessions import grant_store
from stationmaster_server.sessions.model import Message, MessageRole, NewSession, Session, SessionState

from tests.sessions.builders import SPEC, add, colleague, converse, make_caller, message, repeating
from tests.sessions.conftest import Rooms

PARENT = NewSession(
    display_name="Birds",
    spec=AgentSpec(model="demo", instructions="be kind"),
    tool_policies=(ToolPolicy("files.*", Effect.DENY),),
    limits=Limits(max_tokens_per_turn=5),
    labels={"team": "blue"},
    idle_timeout=timedelta(minutes=5),
)


async def messages(rooms: Rooms, caller: Caller, session: Session) -> list[Message]:
    return (await rooms.sessions.list_messages(caller, session.id, "", "", PageRequest(1000))).items


async def test_a_fork_has_the_messages_the_specification_and_names_its_parent(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    stored = await converse(rooms.database, caller.tenant, parent.id, "uaucta")

    child = await rooms.sessions.fork(caller, parent.id)

    assert child == await rooms.sessions.get(caller, child.id)
    assert (child.parent_session_id, child.parent_message, child.message_count) == (parent.id, 6, 6)
    assert (child.state, child.spec, child.tool_policies) == (SessionState.ACTIVE, parent.spec, parent.tool_policies)
    assert (child.limits, child.labels, child.idle_timeout) == (parent.limits, parent.labels, parent.idle_timeout)
    copied = await messages(rooms, caller, child)
    assert [(each.number, each.role, each.parts, each.created_at) for each in copied] == [
        (each.number, each.role, each.parts, each.created_at) for each in stored
    ]


async def test_a_fork_up_to_a_message_ends_there_and_goes_on_with_its_own(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    await converse(rooms.database, caller.tenant, parent.id, "uauaua")

    child = await rooms.sessions.fork(caller, parent.id, up_to=2, display_name="Other birds")
    (added,) = await converse(rooms.database, caller.tenant, child.id, "u")

    assert child.display_name == "Other birds"
    assert added.number == 3
    assert len(await messages(rooms, caller, child)) == 3
    assert len(await messages(rooms, caller, parent)) == 6


async def test_a_fork_has_a_workspace_and_a_stream_of_its_own(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)

    child = await rooms.sessions.fork(caller, parent.id)

    assert {folder.name for folder in rooms.workspaces.iterdir()} == {str(parent.id), str(child.id)}
    (event,) = await rooms.services.log.read(caller.tenant, child.id, 0, 10)
    assert (event.sequence, event.kind, event.body) == (1, "session_created", {"parent_session": str(parent.id)})


async def test_turns_and_sequences_of_the_parent_are_not_the_childs(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    said = message(parent.id, MessageRole.ASSISTANT, Text("x"), turn_id=new_id())
    await add(rooms.database, caller.tenant, replace(said, first_delta=3, last_delta=9))

    (copied,) = await messages(rooms, caller, await rooms.sessions.fork(caller, parent.id))

    assert (copied.turn_id, copied.first_delta, copied.last_delta) == (None, 0, 0)


async def test_permissions_granted_for_the_parent_are_not_the_childs(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    async with rooms.database.system() as tx:
        await grant_store.grant_tool(tx, caller.tenant.organization_id, parent.id, "files.write")
        await grant_store.grant_tool(tx, caller.tenant.organization_id, parent.id, "files.write")

    assert (await rooms.sessions.get(caller, parent.id)).granted_tools == ("files.write",)
    assert (await rooms.sessions.fork(caller, parent.id)).granted_tools == ()


@pytest.mark.parametrize("state", SessionState)
async def test_a_session_in_any_state_can_be_forked_and_stays_as_it_is(
    rooms: Rooms, caller: Caller, state: SessionState
) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    async with rooms.database.system() as tx:
        await tx.execute("UPDATE sessions SET state = $2 WHERE id = $1", parent.id, state)
    before = await rooms.sessions.get(caller, parent.id)

    child = await rooms.sessions.fork(caller, parent.id)

    assert child.state is SessionState.ACTIVE
    assert await rooms.sessions.get(caller, parent.id) == before


async def test_a_point_that_parts_a_call_from_its_result_is_refused(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    await converse(rooms.database, caller.tenant, parent.id, "uucta")

    with pytest.raises(InvalidArgument) as caught:
        await rooms.sessions.fork(caller, parent.id, up_to=3)

    assert [violation.field for violation in caught.value.violations] == ["up_to_message"]
    assert len(list(rooms.workspaces.iterdir())) == 1


@pytest.mark.parametrize("up_to", [99, 0])
async def test_a_point_that_is_no_message_of_the_session_is_not_found(rooms: Rooms, caller: Caller, up_to: int) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    await converse(rooms.database, caller.tenant, parent.id, "ua")

    with pytest.raises(NotFound) as caught:
        await rooms.sessions.fork(caller, parent.id, up_to=up_to)

    assert caught.value.resource_name == f"sessions/{parent.id}/messages/{up_to}"
    assert len(list(rooms.workspaces.iterdir())) == 1


async def test_a_fork_in_the_middle_of_a_tool_call_ends_before_the_call(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    await converse(rooms.database, caller.tenant, parent.id, "uauc")

    child = await rooms.sessions.fork(caller, parent.id)

    assert [each.number for each in await messages(rooms, caller, child)] == [1, 2, 3]


async def test_a_fork_of_anothers_session_belongs_to_whoever_forked_it(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    boss = make_caller(colleague(caller.tenant), Role.ADMIN)

    child = await rooms.sessions.fork(boss, parent.id)

    assert child.user_id == boss.tenant.user_id


async def test_a_fork_counts_in_the_quota(rooms: Rooms, caller: Caller) -> None:
    tenant = caller.tenant
    async with rooms.database.system() as tx:
        await quota_store.put_quota(tx, tenant.organization_id, Quota(tenant.user_id, max_concurrent_sessions=1))
    parent = await rooms.sessions.create(caller, NewSession(spec=SPEC))

    with pytest.raises(ResourceExhausted):
        await rooms.sessions.fork(caller, parent.id)

    assert len(list(rooms.workspaces.iterdir())) == 1


async def test_a_repeated_fork_gives_the_first_answer(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    repeated = repeating(caller)

    first = await rooms.sessions.fork(repeated, parent.id)

    assert await rooms.sessions.fork(repeated, parent.id) == first
    assert len(list(rooms.workspaces.iterdir())) == 2


async def test_a_fork_of_a_fork_reads_on_where_numbers_were_given_up(rooms: Rooms, caller: Caller) -> None:
    parent = await rooms.sessions.create(caller, PARENT)
    await converse(rooms.database, caller.tenant, parent.id, "uaua")
    async with rooms.database.system() as tx:
        await tx.execute("DELETE FROM messages WHERE session_id = $1 AND number = 3", parent.id)

    child = await rooms.sessions.fork(caller, (await rooms.sessions.fork(caller, parent.id)).id)

    assert [each.number for each in await messages(rooms, caller, child)] == [1, 2, 4]
    assert child.message_count == 3
