"""The rules of four levels joined: the strictest wins unless granted, and a DENY is never granted away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.agents.model import AgentSpec, Effect, ToolPolicy
from stationmaster_server.agents.runtime import ToolCall, ToolResult
from stationmaster_server.db.ids import new_id
from stationmaster_server.identity import store
from stationmaster_server.identity.model import STRICTNESS
from stationmaster_server.sessions.model import NewSession, PermissionDecision, TurnState
from stationmaster_server.sessions.opening import opened
from stationmaster_server.sessions.permissions import Answer
from stationmaster_server.sessions.rulings import rulings

from tests.sessions.station import Station, kinds

WRITE = '/tool files.write {"path": "a.txt", "content": "one"}'
TOOL = "files.write"
LEVEL = st.lists(
    st.builds(ToolPolicy, st.sampled_from(("*", "files.*", "*.write", TOOL, "math.*")), st.sampled_from(Effect)),
    max_size=3,
).map(tuple)


@given(
    agent=LEVEL, session=LEVEL, user=LEVEL, organization=LEVEL, default=st.sampled_from(Effect), granted=st.booleans()
)
def test_the_strictest_of_four_levels_wins_unless_granted(
    agent: tuple[ToolPolicy, ...],
    session: tuple[ToolPolicy, ...],
    user: tuple[ToolPolicy, ...],
    organization: tuple[ToolPolicy, ...],
    default: Effect,
    granted: bool,
) -> None:
    asked = replace(
        opened(new_id(), new_id(), NewSession(), AgentSpec(model="demo")),
        spec=AgentSpec(model="demo", tool_policies=agent),
        tool_policies=session,
        granted_tools=(TOOL,) if granted else (),
    )
    effects = [rule.effect for rule in (*agent, *session, *user, *organization) if rule.pattern != "math.*"]
    expected = max(effects or [default], key=lambda effect: STRICTNESS[effect])
    if expected is Effect.ASK and granted:
        expected = Effect.ALLOW
    assert rulings(asked, user + organization, ())(ToolCall("1", TOOL, {}), default).effect is expected


async def rule(
    station: Station, *, user: tuple[ToolPolicy, ...] = (), organization: tuple[ToolPolicy, ...] = ()
) -> None:
    """Set the rules of the caller and its organization."""
    tenant = station.caller.tenant
    async with station.database.system() as tx:
        tx.audited = True  # the service that tells of it has tests of its own
        found = await store.get_user(tx, tenant.organization_id, tenant.user_id)
        home = await store.get_organization(tx, tenant.organization_id)
        assert found is not None
        assert home is not None
        await store.update_user(tx, replace(found, tool_policies=user))
        await store.update_organization(tx, replace(home, tool_policies=organization))


async def outcome(station: Station, session_id: Any) -> list[tuple[bool, str]]:
    return [
        (part.is_error, part.content)
        for message in await station.messages(session_id)
        for part in message.parts
        if isinstance(part, ToolResult)
    ]


async def test_the_organizations_rule_holds_in_a_turn_that_begins_with_its_message(station: Station) -> None:
    await rule(station, organization=(ToolPolicy("files.*", Effect.DENY),))
    session_id = await station.create(tool_policies=(ToolPolicy("*", Effect.ALLOW),))
    events = await station.run(session_id, WRITE)
    assert "permission_requested" not in kinds(events)
    ((failed, text),) = await outcome(station, session_id)
    assert failed
    assert "policy" in text
    assert not (station.workspaces.path(session_id) / "a.txt").exists()


async def test_the_users_rule_holds_in_a_turn_that_waited_for_its_session(station: Station) -> None:
    session_id = await station.create(tool_policies=(ToolPolicy("*", Effect.ALLOW),))
    first = await station.send(session_id, "/slow 50\n/say 20")
    second = await station.send(session_id, WRITE)
    await rule(station, user=(ToolPolicy(TOOL, Effect.ASK),))
    await station.ended(session_id, first)
    (request,) = await station.asked(session_id)
    await station.permissions.resolve(
        station.caller, session_id, request.id, Answer(PermissionDecision.ALLOW_FOR_SESSION)
    )
    assert (await station.ended(session_id, second)).state is TurnState.COMPLETED
    assert "permission_requested" not in kinds(await station.run(session_id, WRITE)), "granted for the session"


async def test_a_rule_that_denies_while_a_turn_waits_denies_what_somebody_allowed(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    await rule(station, organization=(ToolPolicy("files.*", Effect.DENY),))
    await station.permissions.resolve(
        station.caller, session_id, request.id, Answer(PermissionDecision.ALLOW_FOR_SESSION)
    )
    assert (await station.ended(session_id, started)).state is TurnState.COMPLETED
    ((failed, _),) = await outcome(station, session_id)
    assert failed
    assert not (station.workspaces.path(session_id) / "a.txt").exists()
    await station.run(session_id, WRITE)
    assert all(failed for failed, _ in await outcome(station, session_id)), "what was granted does not undo it"


async def test_edited_arguments_that_do_not_fit_the_tool_are_told_to_the_model(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    answer = Answer(PermissionDecision.ALLOW_ONCE, edited_arguments={"path": 7})
    await station.permissions.resolve(station.caller, session_id, request.id, answer)
    assert (await station.ended(session_id, started)).state is TurnState.COMPLETED
    ((failed, text),) = await outcome(station, session_id)
    assert failed
    assert "path" in text
