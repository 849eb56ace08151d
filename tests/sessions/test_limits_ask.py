"""Limits that ask: the turn waits where it would have broken one, and goes on from there when somebody allows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from stationmaster_server.agents.model import Limits, OnBreach, OnPermissionTimeout, PermissionSettings
from stationmaster_server.agents.prices import Price
from stationmaster_server.agents.runtime import Text, ToolResult
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.sessions.model import (
    PermissionDecision,
    PermissionRequest,
    PermissionState,
    SessionState,
    Turn,
    TurnState,
)
from stationmaster_server.sessions.permissions import Answer
from stationmaster_server.sessions.turns import Started

from tests.sessions.caps import cap
from tests.sessions.station import Station, kinds, open_station
from tests.waiting import until

ALLOW, DENY = Answer(PermissionDecision.ALLOW_ONCE), Answer(PermissionDecision.DENY)
TWO_CALLS = '/tools\n/tool math.evaluate {"expression": "1+1"}\n/tool math.evaluate {"expression": "2+2"}'
ASK = OnBreach.ASK


def asking(limit: str, value: int) -> Limits:
    """One limit, at which somebody is asked."""
    named: dict[str, Any] = {limit: value, "on_breach": ASK}
    return Limits(**named)


async def answer(station: Station, request: PermissionRequest, given: Answer = ALLOW) -> PermissionRequest:
    return await station.permissions.resolve(station.caller, request.session_id, request.id, given)


async def ended_allowing(station: Station, session_id: UUID, started: Started) -> tuple[Turn, list[str]]:
    """The turn, once it has ended because everything that it asked was allowed; and the limits that it asked about."""
    asked = []

    async def ended() -> Turn | None:
        page = await station.permissions.list_requests(
            station.caller, session_id, "state = PENDING", "", PageRequest(10)
        )
        for request in page.items:
            assert request.breach is not None
            asked.append(request.breach.limit)
            await answer(station, request)
        turn = await station.turn(session_id, started)
        return turn if turn.finished_at is not None else None

    turn = await until(ended)
    assert turn is not None
    return turn, asked


async def results(station: Station, session_id: UUID) -> list[str]:
    messages = await station.messages(session_id)
    return [part.content for message in messages for part in message.parts if isinstance(part, ToolResult)]


@pytest.mark.parametrize("limit", ["max_tool_calls_per_turn", "max_tool_calls_per_session"])
async def test_a_turn_asks_before_the_call_that_breaks_its_limit_and_goes_on_there(
    station: Station, limit: str
) -> None:
    session_id = await station.create(limits=asking(limit, 1))
    started = await station.send(session_id, TWO_CALLS)
    (request,) = await station.asked(session_id)
    assert request.breach is not None
    assert (request.breach.limit, request.breach.limit_value, request.breach.used_value) == (limit, 1, 2)
    assert (await station.session(session_id)).state is SessionState.AWAITING_PERMISSION
    assert station.busy == 0
    await answer(station, request)
    turn = await station.ended(session_id, started)
    assert (turn.state, turn.usage.tool_calls, turn.attempts) == (TurnState.COMPLETED, 2, 1)
    assert await results(station, session_id) == ["2", "4"]
    happened = kinds(await station.events(session_id, started))
    assert happened.count("tool_call_started") == happened.count("tool_call_finished") == 2
    assert "limit_reached" not in happened
    assert (await station.session(session_id)).usage == turn.usage


async def test_what_is_allowed_a_session_stays_allowed_and_what_is_allowed_a_turn_ends_with_it(
    station: Station,
) -> None:
    limits = Limits(max_tool_calls_per_turn=1, max_tool_calls_per_session=3, on_breach=ASK)
    session_id = await station.create(limits=limits)
    asked = []
    for _ in range(3):
        started = await station.send(session_id, TWO_CALLS)
        turn, limits_asked = await ended_allowing(station, session_id, started)
        asked += limits_asked
        assert turn.state is TurnState.COMPLETED
    assert asked == ["max_tool_calls_per_turn"] * 2 + ["max_tool_calls_per_session"] + ["max_tool_calls_per_turn"]
    assert (await station.session(session_id)).usage.tool_calls == 6


@pytest.mark.parametrize("limit", ["max_tokens_per_turn", "max_tokens_per_session"])
async def test_a_turn_asks_before_its_first_model_call(station: Station, limit: str) -> None:
    session_id = await station.create(limits=asking(limit, 4_000), tools=("files.*",))
    started = await station.send(session_id, "/say 3" + " " * 2_000)
    (request,) = await station.asked(session_id)
    assert request.breach is not None
    assert request.breach.limit == limit
    await answer(station, request)
    assert (await station.ended(session_id, started)).state is TurnState.COMPLETED
    happened = kinds(await station.events(session_id, started))
    assert happened.count("text_delta") == 1
    assert len(await station.messages(session_id)) == 2


async def test_denied_the_turn_ends_at_its_limit(station: Station) -> None:
    session_id = await station.create(limits=Limits(max_tool_calls_per_turn=1, on_breach=ASK))
    started = await station.send(session_id, TWO_CALLS)
    (request,) = await station.asked(session_id)
    await answer(station, request, DENY)
    turn = await station.ended(session_id, started)
    assert (turn.state, turn.reason) == (TurnState.LIMITED, "LIMIT_REACHED")
    assert "max_tool_calls_per_turn is 1" in turn.error_message
    assert turn.usage.tool_calls == 1
    assert (await results(station, session_id))[0] == "2"
    happened = kinds(await station.events(session_id, started))
    assert happened[-1] == "turn_finished"
    assert "limit_reached" in happened
    assert (await station.session(session_id)).state is SessionState.ACTIVE
    again = await station.run(session_id, "/say 3")
    assert again[-1].body["state"] == "COMPLETED"


async def test_unanswered_the_turn_ends_at_its_limit(station: Station) -> None:
    settings = PermissionSettings(timedelta(milliseconds=1), OnPermissionTimeout.DENY)
    session_id = await station.create(limits=Limits(max_tool_calls_per_turn=1, on_breach=ASK), permissions=settings)
    started = await station.send(session_id, TWO_CALLS)
    await until(station.permissions.expire_due)
    turn = await station.ended(session_id, started)
    assert (turn.state, turn.reason) == (TurnState.LIMITED, "LIMIT_REACHED")


async def test_no_limit_is_allowed_for_the_session(station: Station) -> None:
    session_id = await station.create(limits=Limits(max_tool_calls_per_turn=1, on_breach=ASK))
    await station.send(session_id, TWO_CALLS)
    (request,) = await station.asked(session_id)
    for wrong in (
        Answer(PermissionDecision.ALLOW_FOR_SESSION),
        Answer(PermissionDecision.ALLOW_ONCE, edited_arguments={"expression": "1"}),
    ):
        with pytest.raises(InvalidArgument):
            await answer(station, request, wrong)
    assert (await station.asked(session_id))[0].state is PermissionState.PENDING


async def test_a_turn_out_of_time_takes_its_words_back_and_says_them_when_it_has_more(station: Station) -> None:
    session_id = await station.create()
    await station.run(session_id, "/say 1")  # the model is ready now
    little = Limits(max_turn_duration=timedelta(seconds=1), on_breach=ASK)
    await station.sessions.update(station.caller, session_id, {"limits": little}, "")
    started = await station.send(session_id, "/slow 40\n/say 60")
    (request,) = await station.asked(session_id)
    assert request.breach is not None
    assert request.breach.limit == "max_turn_duration"
    enough = Limits(max_turn_duration=timedelta(minutes=1))
    await station.sessions.update(station.caller, session_id, {"limits": enough}, "")
    await answer(station, request)
    turn = await station.ended(session_id, started)
    assert turn.state is TurnState.COMPLETED
    events = await station.events(session_id, started)
    assert "permission_requested" in kinds(events)
    said, replaced = [event for event in events if event.kind == "text_delta"], set()
    for event in events:
        if event.kind == "answer_restarted":
            span = event.body["replaces"]
            replaced |= set(range(span["first_sequence"], span["last_sequence"] + 1))
    whole = "".join(event.body["text"] for event in said if event.sequence not in replaced)
    assert (await station.messages(session_id))[-1].parts == (Text(whole),)
    cut = kinds(events).count("answer_restarted")
    assert turn.usage.model_calls >= 1 + cut, "the answer that was cut was paid for"


async def test_a_session_says_what_happens_at_its_limits(station: Station) -> None:
    session_id = await station.create(limits=Limits(max_tool_calls_per_turn=1, on_breach=ASK))
    await station.sessions.update(station.caller, session_id, {"limits": Limits(on_breach=OnBreach.END)}, "")
    assert (await station.run(session_id, TWO_CALLS))[-1].body["state"] == "LIMITED"


@pytest_asyncio.fixture
async def dear(database_url: str, tmp_path: Path, caller: Caller) -> AsyncIterator[Station]:
    """A station whose model costs something."""
    prices = {"demo": Price(1_000_000, 1_000_000)}
    async with open_station(database_url, tmp_path / "dear", caller, prices=prices) as opened:
        yield opened


async def limit_cost(station: Station, micros: int) -> None:
    await cap(station, station.caller.tenant.user_id, max_cost_micros_per_day=micros)


async def test_no_answer_lifts_a_quota_but_the_turn_tries_again(dear: Station) -> None:
    await limit_cost(dear, 100)
    session_id = await dear.create(limits=Limits(on_breach=ASK), max_output_tokens=100, tools=())
    started = await dear.send(session_id, "/say 3")
    (request,) = await dear.asked(session_id)
    assert request.breach is not None
    assert request.breach.limit == f"users/{dear.caller.tenant.user_id}/quota max_cost_micros_per_day"
    await answer(dear, request)

    async def another() -> list[PermissionRequest]:
        return [one for one in await dear.asked(session_id) if one.id != request.id]

    (second,) = await until(another)
    assert (await dear.session(session_id)).usage.cost_micros == 0
    await limit_cost(dear, 100_000)
    await answer(dear, second)
    assert (await dear.ended(session_id, started)).state is TurnState.COMPLETED


async def test_denied_a_turn_ends_at_its_quota(dear: Station) -> None:
    await limit_cost(dear, 100)
    session_id = await dear.create(limits=Limits(on_breach=ASK), max_output_tokens=100, tools=())
    started = await dear.send(session_id, "/say 3")
    (request,) = await dear.asked(session_id)
    await answer(dear, request, DENY)
    turn = await dear.ended(session_id, started)
    assert (turn.state, turn.reason) == (TurnState.LIMITED, "QUOTA_EXCEEDED")


async def test_money_that_is_allowed_once_more_is_spent_once_more_at_most(dear: Station) -> None:
    session_id = await dear.create(
        limits=Limits(max_cost_micros_per_session=1_000, on_breach=ASK), max_output_tokens=10_000, tools=()
    )
    allowed = 0
    for _ in range(3):
        started = await dear.send(session_id, "/say 9000")
        turn, asked = await ended_allowing(dear, session_id, started)
        allowed += len(asked)
        assert turn.state is TurnState.COMPLETED
        assert (await dear.session(session_id)).usage.cost_micros <= 1_000 * (1 + allowed)
    assert allowed
