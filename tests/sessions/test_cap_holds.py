"""A day's cap is never passed: not by racing turns, not by two servers, whatever the model reports."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path

import pytest
import pytest_asyncio
from stationmaster_server.agents.model import Limits
from stationmaster_server.agents.providers import Protocol, ProviderSettings
from stationmaster_server.db.caller import Caller
from stationmaster_server.sessions.model import Turn, TurnState

from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import Reply, StandIn, stand_in
from tests.sessions.caps import cap, used_today, watched
from tests.sessions.station import Station, open_station

# The library's own word about reports that make no sense: making sense of them is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic_ai._warnings.UsageExtractionFailedWarning")

MODEL = "anthropic:claude-sonnet-5"
CAPS = {"cost_micros": 500_000, "tokens": 25_000}
TURNS = {"cost_micros": 200, "tokens": 100}
# Two hundred turns in one process keep its loop busy: no lease is to be lost by that.
LEASE = timedelta(seconds=30)
HUGE = 2**62
REPORTS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "huge": ({"input_tokens": HUGE, "output_tokens": 1}, {"output_tokens": HUGE}),
    "much of the cache": (
        {"input_tokens": 0, "cache_read_input_tokens": 10**9, "cache_creation_input_tokens": 10**9, "output_tokens": 1},
        {"output_tokens": 10},
    ),
    "nothing": ({}, {}),
    "zero": ({"input_tokens": 0, "output_tokens": 0}, {"output_tokens": 0}),
    "no input": ({"input_tokens": 0, "output_tokens": 1}, {"output_tokens": 20}),
    "negative": ({"input_tokens": -1_000_000, "output_tokens": -1}, {"output_tokens": -1_000_000}),
    "true": ({"input_tokens": 12, "output_tokens": 1}, {"output_tokens": 20}),
}


def reporting(kind: str) -> Reply:
    """An answer that reports its usage so."""
    return anthropic.answer(anthropic.text("Good ", "day"), usage=REPORTS[kind])


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[StandIn]:
    async with stand_in() as started:
        yield started


@pytest_asyncio.fixture
async def stations(
    database_url: str, tmp_path: Path, caller: Caller, provider: StandIn
) -> AsyncIterator[tuple[Station, Station]]:
    """Two servers on one database, whose provider is the stand-in."""
    settings = [ProviderSettings("anthropic", Protocol.ANTHROPIC, "sk-ant-secret-0123456789", provider.url)]
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(
                open_station(database_url, tmp_path / "workspaces", caller, lease=LEASE, providers=settings)
            )
            for _ in range(2)
        ]
        yield one, two


async def talk(station: Station) -> Turn:
    """One turn in a session of its own."""
    session_id = await station.create(model=MODEL, tools=(), max_output_tokens=1_000)
    return await station.ended(session_id, await station.send(session_id, "hello"), seconds=120)


@pytest.mark.parametrize("kind", CAPS)
@pytest.mark.parametrize("whose", ["user", "organization"])
async def test_a_cap_is_never_passed_by_racing_turns_whatever_the_model_reports(
    stations: tuple[Station, Station], caller: Caller, provider: StandIn, whose: str, kind: str
) -> None:
    one, two = stations
    subject = caller.tenant.user_id if whose == "user" else caller.tenant.organization_id
    limit, count = CAPS[kind], TURNS[kind]
    await cap(one, subject, **{f"max_{kind}_per_day": limit})
    replies = [reporting(report) for report in islice(cycle(REPORTS), 2 * count)]
    replies[10::50] = [anthropic.cut(anthropic.text("Good ", "day"))] * len(replies[10::50])
    provider.reply(*replies)
    async with watched(one, subject) as seen:
        turns = await asyncio.gather(*(talk(station) for station in (one, two) * (count // 2)))
    end = await used_today(one, subject)
    assert len(seen) > count
    assert max(getattr(amounts, kind) for amounts in (*seen, end)) <= limit
    assert end.cost_micros == sum(turn.usage.cost_micros for turn in turns), "nothing stays reserved"
    assert end.tokens == sum(turn.usage.total_tokens for turn in turns)
    states = Counter((turn.state, turn.reason) for turn in turns)
    assert set(states) == {(TurnState.COMPLETED, ""), (TurnState.LIMITED, "QUOTA_EXCEEDED")}
    assert getattr(end, kind) > limit // 2


@pytest.mark.parametrize("kind", REPORTS)
async def test_a_report_that_cannot_be_true_costs_what_was_set_aside(
    stations: tuple[Station, Station], provider: StandIn, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    provider.reply(reporting(kind))
    with caplog.at_level(logging.WARNING):
        turn = await talk(stations[0])
    assert turn.state is TurnState.COMPLETED
    assert 0 < turn.usage.cost_micros < CAPS["cost_micros"]
    assert 0 < turn.usage.total_tokens < 2_000
    assert turn.usage.cost_estimated is (kind != "true")
    warnings = [record.getMessage() for record in caplog.records if "not believed" in record.getMessage()]
    assert len(warnings) == (kind in ("huge", "much of the cache"))
    assert all(MODEL in warning and str(turn.session_id) in warning for warning in warnings)


async def test_a_session_that_has_little_left_gets_a_short_answer_and_then_none(
    stations: tuple[Station, Station], provider: StandIn
) -> None:
    station = stations[0]
    limit = 5_000
    provider.reply(*[reporting("huge")] * 10)
    limits = Limits(max_cost_micros_per_session=limit)
    session_id = await station.create(model=MODEL, tools=(), max_output_tokens=8_000, limits=limits)
    first = await station.ended(session_id, await station.send(session_id, "hello"))
    second = await station.ended(session_id, await station.send(session_id, "hello"))
    assert (first.state, second.state) == (TurnState.COMPLETED, TurnState.LIMITED)
    (asked,) = provider.requests
    assert 16 <= asked.body["max_tokens"] < 500
    assert limit - 100 < (await station.session(session_id)).usage.cost_micros <= limit


async def test_every_attempt_at_an_answer_is_reserved(stations: tuple[Station, Station], provider: StandIn) -> None:
    station = stations[0]
    cut = anthropic.cut(anthropic.text("Good ", "day"))
    provider.reply(cut, cut, reporting("huge"))
    limits = Limits(max_cost_micros_per_turn=11_300)
    session_id = await station.create(model=MODEL, tools=(), max_output_tokens=1_000, limits=limits)
    turn = await station.ended(session_id, await station.send(session_id, "hello"))
    assert turn.state is TurnState.LIMITED
    assert len(provider.requests) == 2, "what is left does not pay for a third attempt"
    assert turn.usage.model_calls == 2
    assert 0 < turn.usage.cost_micros <= 11_300
