"""Limits: a cap is a cap."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.agents.model import Limits
from stationmaster_server.agents.prices import Price
from stationmaster_server.agents.runtime import Usage
from stationmaster_server.db.caller import Caller
from stationmaster_server.sessions.limits import before_model_call, lowest, output_tokens_left
from stationmaster_server.sessions.model import SessionState, TurnState

from tests.sessions.station import Station, kinds, open_station

TWO_CALLS = '/tool math.evaluate {"expression": "1+1"}\n/tool math.evaluate {"expression": "2+2"}'


@pytest.mark.parametrize(
    ("limits", "text", "limit"),
    [
        (Limits(max_tokens_per_turn=5), "/say 50", "max_tokens_per_turn"),
        (Limits(max_tokens_per_session=5), "/say 50", "max_tokens_per_session"),
        (Limits(max_tool_calls_per_turn=1), TWO_CALLS, "max_tool_calls_per_turn"),
        (Limits(max_tool_calls_per_session=1), TWO_CALLS, "max_tool_calls_per_session"),
        (Limits(max_turn_duration=timedelta(milliseconds=200)), "/slow 20\n/say 1000", "max_turn_duration"),
    ],
)
async def test_a_limit_ends_the_turn_and_says_which(station: Station, limits: Limits, text: str, limit: str) -> None:
    session_id = await station.create(limits=limits)
    events = await station.run(session_id, text)
    assert events[-1].body["state"] == "LIMITED"
    assert events[-1].body["reason"] == "LIMIT_REACHED"
    (reached,) = [event for event in events if event.kind == "limit_reached"]
    assert reached.body["limit"] == limit
    assert (await station.session(session_id)).state is SessionState.ACTIVE


async def test_the_time_limit_keeps_what_was_said(station: Station) -> None:
    session_id = await station.create(limits=Limits(max_turn_duration=timedelta(milliseconds=300)))
    await station.run(session_id, "/slow 10\n/say 1000")
    assert (await station.messages(session_id))[-1].interrupted


async def test_a_model_call_is_given_no_more_tokens_than_the_limit_leaves(station: Station) -> None:
    session_id = await station.create(limits=Limits(max_tokens_per_turn=5_000))
    started = await station.send(session_id, "/say 10000")
    turn = await station.ended(session_id, started)
    assert turn.state is TurnState.COMPLETED
    assert 100 < turn.usage.total_tokens <= 5_000


async def test_the_cost_of_a_session_never_passes_its_limit(database_url: str, tmp_path: Path, caller: Caller) -> None:
    prices = {"demo": Price(1_000_000, 1_000_000)}
    async with open_station(database_url, tmp_path / "workspaces", caller, prices=prices) as station:
        session_id = await station.create(limits=Limits(max_cost_micros_per_session=20_000), max_output_tokens=1000)
        for _ in range(10):
            started = await station.send(session_id, "/say 900")
            if (await station.ended(session_id, started)).state is TurnState.LIMITED:
                break
        else:
            pytest.fail("the limit was never reached")
        used = (await station.session(session_id)).usage.cost_micros
        assert 0 < used <= 20_000


async def test_a_session_may_be_stricter_than_its_agent(station: Station) -> None:
    session_id = await station.create(limits=Limits(max_tool_calls_per_turn=5))
    await station.sessions.update(station.caller, session_id, {"limits": Limits(max_tool_calls_per_turn=1)}, "")
    events = await station.run(session_id, TWO_CALLS)
    assert "limit_reached" in kinds(events)


AMOUNTS = st.one_of(st.none(), st.integers(0, 1000))
USAGES = st.builds(Usage, input_tokens=st.integers(0, 500), output_tokens=st.integers(0, 500))


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_the_lower_limit_holds(one: int | None, two: int | None, three: int | None, four: int | None) -> None:
    both = lowest(Limits(one, two), Limits(three, four))
    for low, sides in ((both.max_tokens_per_turn, (one, three)), (both.max_tokens_per_session, (two, four))):
        given_ones = [side for side in sides if side is not None]
        assert low == (min(given_ones) if given_ones else None)


@given(AMOUNTS, AMOUNTS, USAGES, USAGES, st.integers(0, 500))
def test_what_is_left_is_never_more_than_the_limits_allow(
    per_turn: int | None, per_session: int | None, earlier: Usage, turn: Usage, input_tokens: int
) -> None:
    limits = Limits(max_tokens_per_turn=per_turn, max_tokens_per_session=per_session)
    session = earlier + turn
    left = output_tokens_left(limits, session, turn, input_tokens)
    if left:
        assert before_model_call(limits, session, turn, Usage(input_tokens, left)) is None
        assert before_model_call(limits, session, turn, Usage(input_tokens, left + 1)) is not None
