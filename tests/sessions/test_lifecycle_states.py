"""What happens to a session after its creation: every change of state, updates, and who may make them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import product

import pytest
from stationmaster_server.agents.model import AgentSpec, Effect, Limits, ToolPolicy
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.embedding.ranking import Mode
from stationmaster_server.errors import Aborted, FailedPrecondition, NotFound, Reason
from stationmaster_server.identity import quota_store
from stationmaster_server.sessions.model import ENDED, TRANSITIONS, NewSession, Session, SessionState, transition
from stationmaster_server.sessions.searching import MessageSearch

from tests.embedding.here import embedder_here
from tests.fixtures.database import make_tenant
from tests.sessions.builders import SPEC, colleague, make_caller, repeating
from tests.sessions.conftest import Rooms

NEW = NewSession(spec=SPEC)
PAGE = PageRequest(10)
S = SessionState
Method = Callable[[Rooms, Caller, Session], Awaitable[object]]
CHANGES: dict[SessionState, Method] = {
    S.PAUSED: lambda rooms, caller, session: rooms.sessions.pause(caller, session.id, "because"),
    S.ACTIVE: lambda rooms, caller, session: rooms.sessions.resume(caller, session.id),
    S.TERMINATED: lambda rooms, caller, session: rooms.sessions.terminate(caller, session.id, "because"),
    S.ARCHIVED: lambda rooms, caller, session: rooms.sessions.archive(caller, session.id),
}


async def session_in(rooms: Rooms, caller: Caller, state: SessionState) -> Session:
    """A session that is in a state, whatever way leads there."""
    session = await rooms.sessions.create(caller, NEW)
    async with rooms.database.system() as tx:
        await tx.execute("UPDATE sessions SET state = $2 WHERE id = $1", session.id, state)
    return session


async def kinds(rooms: Rooms, caller: Caller, session: Session) -> list[str]:
    return [event.kind for event in await rooms.services.log.read(caller.tenant, session.id, 0, 100)]


@pytest.mark.parametrize(("current", "wanted"), list(product(S, S)))
def test_a_transition_outside_the_table_is_refused_naming_both_states(
    current: SessionState, wanted: SessionState
) -> None:
    if wanted in TRANSITIONS[current]:
        assert transition("sessions/x", current, wanted) is wanted
        return
    with pytest.raises(FailedPrecondition) as caught:
        transition("sessions/x", current, wanted)
    assert caught.value.reason is Reason.ILLEGAL_TRANSITION
    assert caught.value.metadata == {"from": current.value, "to": wanted.value}


def test_nothing_leads_out_of_the_archive_and_only_termination_into_it() -> None:
    assert TRANSITIONS[S.ARCHIVED] == frozenset()
    assert [state for state in S if S.ARCHIVED in TRANSITIONS[state]] == [S.TERMINATED]


def allowed(current: SessionState, wanted: SessionState) -> bool:
    """Callers go by the table, but only a turn's end, not a caller, frees a busy session."""
    return wanted in TRANSITIONS[current] and (wanted is not S.ACTIVE or current is S.PAUSED)


async def test_callers_move_a_session_exactly_as_the_table_says(rooms: Rooms, caller: Caller) -> None:
    for current, wanted in product(S, CHANGES):
        session = await session_in(rooms, caller, current)
        if allowed(current, wanted):
            await CHANGES[wanted](rooms, caller, session)
            assert (await rooms.sessions.get(caller, session.id)).state is wanted
            assert await kinds(rooms, caller, session) == ["session_created", "session_state_changed"]
            continue
        with pytest.raises(FailedPrecondition) as caught:
            await CHANGES[wanted](rooms, caller, session)
        assert caught.value.reason is Reason.ILLEGAL_TRANSITION
        assert {current.value, wanted.value} <= set(caught.value.message.split())
        assert (await rooms.sessions.get(caller, session.id)).state is current
        assert await kinds(rooms, caller, session) == ["session_created"]


async def test_a_change_of_state_says_why_and_is_audited(rooms: Rooms, caller: Caller) -> None:
    session = await rooms.sessions.create(caller, NEW)

    paused = await rooms.sessions.pause(caller, session.id, "lunch")

    assert (paused.state, paused.state_reason, paused.last_sequence) == (S.PAUSED, "lunch", 2)
    (event,) = await rooms.services.log.read(caller.tenant, session.id, 1, 10)
    assert event.body == {"from_state": "ACTIVE", "to_state": "PAUSED", "reason": "lunch"}
    async with rooms.database.system() as tx:
        row = await tx.fetchrow("SELECT * FROM audit_events WHERE action = 'session.pause'")
    assert row is not None
    assert (row["resource"], row["reason"]) == (f"sessions/{session.id}", "lunch")


async def test_a_resumed_session_no_longer_has_a_reason(rooms: Rooms, caller: Caller) -> None:
    session = await rooms.sessions.create(caller, NEW)
    await rooms.sessions.pause(caller, session.id, "lunch")

    assert (await rooms.sessions.resume(caller, session.id)).state_reason == ""


async def test_the_archive_keeps_the_reason_of_the_end(rooms: Rooms, caller: Caller) -> None:
    session = await rooms.sessions.create(caller, NEW)
    await rooms.sessions.terminate(caller, session.id, "done")

    assert (await rooms.sessions.archive(caller, session.id)).state_reason == "done"


async def test_termination_lets_go_of_executors_after_its_commit(rooms: Rooms, caller: Caller) -> None:
    session = await rooms.sessions.create(caller, NEW)
    await rooms.sessions.pause(caller, session.id)
    assert rooms.closed == []

    await rooms.sessions.terminate(caller, session.id)

    assert rooms.closed == [session.id]


@pytest.mark.parametrize("wanted", [S.PAUSED, S.TERMINATED])
async def test_a_repeated_change_gives_the_first_answer(rooms: Rooms, caller: Caller, wanted: SessionState) -> None:
    session = await rooms.sessions.create(caller, NEW)
    repeated = repeating(caller)

    first = await CHANGES[wanted](rooms, repeated, session)
    second = await CHANGES[wanted](rooms, repeated, session)

    assert first == second
    assert await kinds(rooms, caller, session) == ["session_created", "session_state_changed"]


async def test_an_update_changes_what_it_names_and_nothing_else(rooms: Rooms, caller: Caller) -> None:
    session = await rooms.sessions.create(caller, NewSession(spec=SPEC, display_name="a", labels={"x": "1"}))
    changes = {
        "spec": AgentSpec(model="demo", instructions="new"),
        "tool_policies": (ToolPolicy("*", Effect.DENY),),
        "limits": Limits(max_tool_calls_per_turn=1),
        "idle_timeout": timedelta(hours=1),
    }

    updated = await rooms.sessions.update(caller, session.id, changes)

    assert updated == await rooms.sessions.get(caller, session.id)
    assert {name: getattr(updated, name) for name in changes} == changes
    assert (updated.display_name, updated.labels) == ("a", {"x": "1"})
    assert updated.etag != session.etag
    (event,) = await rooms.services.log.read(caller.tenant, session.id, 1, 10)
    assert (event.kind, event.body) == ("session_updated", {"paths": sorted(changes)})


async def test_a_stale_etag_is_refused_and_changes_nothing(rooms: Rooms, caller: Caller) -> None:
    session = await rooms.sessions.create(caller, NEW)
    await rooms.sessions.update(caller, session.id, {"display_name": "first"}, session.etag)

    with pytest.raises(Aborted) as caught:
        await rooms.sessions.update(caller, session.id, {"display_name": "second"}, session.etag)

    assert caught.value.reason is Reason.ETAG_MISMATCH
    assert (await rooms.sessions.get(caller, session.id)).display_name == "first"


async def test_an_etag_does_not_change_with_the_state(rooms: Rooms, caller: Caller) -> None:
    session = await rooms.sessions.create(caller, NEW)

    assert (await rooms.sessions.pause(caller, session.id)).etag == session.etag


async def test_a_specification_that_cannot_run_is_refused_on_update(rooms: Rooms, caller: Caller) -> None:
    session = await rooms.sessions.create(caller, NEW)

    with pytest.raises(FailedPrecondition) as caught:
        await rooms.sessions.update(caller, session.id, {"spec": AgentSpec(model="unknown")})

    assert caught.value.reason is Reason.MODEL_UNAVAILABLE


@pytest.mark.parametrize("state", S)
async def test_only_what_has_ended_cannot_be_updated(rooms: Rooms, caller: Caller, state: SessionState) -> None:
    session = await session_in(rooms, caller, state)

    if state not in ENDED:
        assert (await rooms.sessions.update(caller, session.id, {"display_name": "x"})).display_name == "x"
        return
    with pytest.raises(FailedPrecondition) as caught:
        await rooms.sessions.update(caller, session.id, {"display_name": "x"})
    assert caught.value.reason is Reason.SESSION_CLOSED


def found(rooms: Rooms, caller: Caller, session: Session, mode: Mode) -> Awaitable[object]:
    return MessageSearch(rooms.database, embedder_here()).search(caller, session.id, "x", mode, PAGE)


METHODS: dict[str, Method] = {
    "get": lambda rooms, caller, session: rooms.sessions.get(caller, session.id),
    "update": lambda rooms, caller, session: rooms.sessions.update(caller, session.id, {"display_name": "x"}),
    "pause": lambda rooms, caller, session: rooms.sessions.pause(caller, session.id),
    "resume": lambda rooms, caller, session: rooms.sessions.resume(caller, session.id),
    "terminate": lambda rooms, caller, session: rooms.sessions.terminate(caller, session.id),
    "archive": lambda rooms, caller, session: rooms.sessions.archive(caller, session.id),
    "fork": lambda rooms, caller, session: rooms.sessions.fork(caller, session.id),
    "watch": lambda rooms, caller, session: anext(rooms.watching.watch(caller, session.id, 0)),
    "messages": lambda rooms, caller, session: rooms.sessions.list_messages(caller, session.id, "", "", PAGE),
    "search": lambda rooms, caller, session: found(rooms, caller, session, Mode.TEXT),
    "search by meaning": lambda rooms, caller, session: found(rooms, caller, session, Mode.MEANING),
}


@pytest.mark.parametrize("method", METHODS)
async def test_somebody_elses_session_and_a_missing_one_answer_alike(rooms: Rooms, caller: Caller, method: str) -> None:
    session = await rooms.sessions.create(caller, NEW)
    foreign = make_caller(await make_tenant(rooms.database), Role.OWNER)
    other = make_caller(colleague(caller.tenant))

    answers = []
    for somebody in (foreign, other):
        with pytest.raises(NotFound) as caught:
            await METHODS[method](rooms, somebody, session)
        answers.append(caught.value)
    async with rooms.database.system() as tx:
        await tx.execute("DELETE FROM sessions WHERE id = $1", session.id)
    with pytest.raises(NotFound) as caught:
        await METHODS[method](rooms, caller, session)

    name = f"sessions/{session.id}"
    texts = {(answer.reason, answer.message, answer.resource_name) for answer in (*answers, caught.value)}
    assert texts == {(Reason.RESOURCE_NOT_FOUND, f"session {name!r} was not found", name)}


@pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN])
async def test_owners_and_admins_act_on_all_sessions_and_the_trail_says_for_whom(
    rooms: Rooms, caller: Caller, role: Role
) -> None:
    session = await rooms.sessions.create(caller, NEW)
    boss = make_caller(colleague(caller.tenant), role)

    ended = await rooms.sessions.terminate(boss, session.id)

    assert ended.user_id == caller.tenant.user_id
    async with rooms.database.system() as tx:
        row = await tx.fetchrow("SELECT * FROM audit_events WHERE action = 'session.terminate'")
        usage = await quota_store.get_usage(tx, caller.tenant.organization_id, caller.tenant.user_id)
    assert row is not None
    assert row["on_behalf_of"] == f"users/{caller.tenant.user_id}"
    assert usage.concurrent_sessions == 0
