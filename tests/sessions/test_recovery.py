"""What becomes of a turn whose server dies."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.agents.runtime import Text
from stationmaster_server.errors import LeaseLost
from stationmaster_server.events.model import Event
from stationmaster_server.sessions import events as session_events
from stationmaster_server.sessions.abandoned import AbandonedTurns
from stationmaster_server.sessions.model import RecoveryPolicy, SessionState, TurnState
from stationmaster_server.sessions.recovery import MAX_ATTEMPTS, Recovery, decide

from tests.sessions.station import Station, text_of
from tests.waiting import until

SLOW = "/slow 10\n/say 150"


def without_replaced(events: list[Event]) -> list[Event]:
    """What a reader shows: the events less those deltas that no longer count."""
    replaced: set[int] = set()
    for event in events:
        if event.kind == "answer_restarted":
            span = event.body["replaces"]
            replaced |= set(range(span["first_sequence"], span["last_sequence"] + 1))
    return [event for event in events if event.kind != "text_delta" or event.sequence not in replaced]


async def killed(station: Station, text: str, recovery: RecoveryPolicy) -> tuple[UUID, list[Event]]:
    """A session whose server died in the middle of a turn, and the events seen before."""
    session_id = await station.create()
    started = await station.send(session_id, text, recovery=recovery)
    seen = await station.events(session_id, started, last="text_delta")
    await station.kill()
    return session_id, seen


async def all_events(station: Station, session_id: UUID) -> list[Event]:
    return await station.services.log.read(station.caller.tenant, session_id, 0, 10_000)


async def test_another_server_resumes_the_turn_and_ends_it_alike(
    station: Station,
    other_station: Station,
) -> None:
    session_id, seen = await killed(station, SLOW, RecoveryPolicy.DEFAULT)
    await other_station.becomes(session_id, SessionState.ACTIVE)
    events = await all_events(other_station, session_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[: len(seen) + 1][1:] == seen, "what was seen before is a prefix of what is stored"
    assert (
        text_of(without_replaced(events)) == " ".join(f"word{n}" for n in range(1, 151))
        or len(text_of(without_replaced(events)).split()) == 150
    )
    assert events[-1].body["state"] == TurnState.COMPLETED
    message = (await other_station.messages(session_id))[-1]
    assert message.parts == (Text(text_of(without_replaced(events))),)


async def test_by_its_policy_the_turn_ends_interrupted_with_everything_it_brought(
    station: Station,
    other_station: Station,
) -> None:
    session_id, _ = await killed(station, SLOW, RecoveryPolicy.INTERRUPT)
    await other_station.becomes(session_id, SessionState.ACTIVE)
    events = await all_events(other_station, session_id)
    assert events[-1].body["state"] == TurnState.INTERRUPTED
    message = (await other_station.messages(session_id))[-1]
    assert message.interrupted
    assert message.parts == (Text(text_of(events)),)


async def test_a_turn_that_was_cancelled_when_its_server_had_died_ends_cancelled(
    station: Station,
    other_station: Station,
) -> None:
    session_id, seen = await killed(station, SLOW, RecoveryPolicy.RESUME)
    turn_id = UUID(seen[-1].body["turn"])
    await other_station.turns.cancel(other_station.caller, session_id, turn_id)

    async def swept() -> bool:
        return await AbandonedTurns(other_station.services).end_all() == 1

    await until(swept, seconds=30)
    turn = await other_station.turns.get_turn(other_station.caller, session_id, turn_id)
    assert turn.state is TurnState.CANCELLED
    assert (await other_station.session(session_id)).state is SessionState.ACTIVE
    assert (await other_station.messages(session_id))[-1].interrupted


async def test_the_stalled_worker_cannot_write_once_its_replacement_has_begun(
    station: Station,
    other_station: Station,
) -> None:
    session_id = await station.create()
    started = await station.send(session_id, SLOW)
    await station.running(session_id, started)
    (stale,) = await station.kill()
    await other_station.becomes(session_id, SessionState.ACTIVE)
    before = await all_events(other_station, session_id)
    organization_id = station.caller.tenant.organization_id
    with pytest.raises(LeaseLost):
        await station.services.log.write(
            organization_id,
            session_id,
            session_events.text_delta(started.turn_id, 1, "late"),
            fence=stale.lease_token,
        )
    assert await all_events(other_station, session_id) == before


async def test_a_turn_whose_work_has_failed_for_good_does_not_hold_its_session(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, SLOW)
    await station.events(session_id, started, last="text_delta")
    await station.kill()
    async with station.database.system() as tx:
        dead = "UPDATE work_items SET state = 'DEAD', finished_at = now() - interval '1 minute' WHERE item_id = $1"
        await tx.execute(dead, started.turn_id)
    assert await AbandonedTurns(station.services).end_all() == 1
    turn = await station.turn(session_id, started)
    assert (turn.state, turn.reason) == (TurnState.FAILED, "INTERNAL")
    assert (await station.session(session_id)).state is SessionState.ACTIVE
    assert (await station.messages(session_id))[-1].interrupted
    assert await AbandonedTurns(station.services).end_all() == 0


@given(st.sampled_from(RecoveryPolicy), st.booleans(), st.integers(min_value=1, max_value=MAX_ATTEMPTS * 2))
def test_a_turn_is_never_tried_for_ever_and_never_repeats_a_call_unasked(
    policy: RecoveryPolicy, call_in_flight: bool, attempts: int
) -> None:
    what = decide(policy, call_in_flight=call_in_flight, attempts=attempts)
    if attempts >= MAX_ATTEMPTS or policy is RecoveryPolicy.INTERRUPT:
        assert what is Recovery.INTERRUPT
    if call_in_flight and policy is not RecoveryPolicy.RESUME:
        assert what is Recovery.INTERRUPT
