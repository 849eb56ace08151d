"""A cap holds for the runtime `claude` as well: its program asks nothing that was not set aside."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from stationmaster_server.agents.model import Limits, OnBreach, RuntimeName
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.providers import Protocol, ProviderSettings
from stationmaster_server.agents.runtimes.bounds import LEAST_OUTPUT_TOKENS
from stationmaster_server.agents.runtimes.claude.request import parse
from stationmaster_server.db.caller import Caller
from stationmaster_server.sessions.model import PermissionDecision, Turn, TurnState
from stationmaster_server.sessions.permissions import Answer

from tests.agents.claude.conversation import READ, command_lines
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import Reply, StandIn, stand_in
from tests.sessions.caps import cap, used_today, watched
from tests.sessions.station import Station, kinds, open_station
from tests.sessions.test_cap_holds import LEASE, MODEL, REPORTS
from tests.waiting import until

CAP, TURNS = 500_000, 24
ALLOW = Answer(PermissionDecision.ALLOW_ONCE)
# The program believes its provider: told of more than its window, it would ask nothing more in this session.
LIES = REPORTS | {"too much": ({"input_tokens": 50_000, "output_tokens": 1}, {"output_tokens": 50_000})}


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[StandIn]:
    """A provider without a script."""
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
                open_station(database_url, tmp_path / name / "workspaces", caller, lease=LEASE, providers=settings)
            )
            for name in ("one", "two")
        ]
        yield one, two


@pytest.fixture
def station(stations: tuple[Station, Station]) -> Station:
    """One of them."""
    return stations[0]


def lying(kind: str, *blocks: list[bytes]) -> Reply:
    """An answer that reports its usage so."""
    return anthropic.answer(*(blocks or [anthropic.text("Good ", "day")]), usage=LIES[kind])


async def talk(station: Station, text: str = "hello", **spec: Any) -> Turn:
    """One turn in a session of its own."""
    options = {"model": MODEL, "runtime": RuntimeName.CLAUDE, "tools": (), "max_output_tokens": 2_000}
    session_id = await station.create(**(options | spec))
    return await station.ended(session_id, await station.send(session_id, text))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "reports",
    [
        pytest.param(tuple(REPORTS), id="all"),
        pytest.param(("zero",), id="zero", marks=pytest.mark.long),
        pytest.param(("huge",), id="huge", marks=pytest.mark.long),
    ],
)
async def test_a_cap_is_never_passed_by_racing_turns_whatever_the_provider_reports(
    stations: tuple[Station, Station], caller: Caller, provider: StandIn, reports: tuple[str, ...]
) -> None:
    one, two = stations
    user = caller.tenant.user_id
    await cap(one, user, max_cost_micros_per_day=CAP)
    provider.reply(*(lying(kind) for kind in islice(cycle(reports), 2 * TURNS)))
    async with watched(one, user) as seen:
        # Each asks with up to twenty thousand tokens: what a dozen of them may cost is more than the cap.
        turns = await asyncio.gather(*(talk(each, "hello " * 3_000) for each in (one, two) * (TURNS // 2)))
    end = await used_today(one, user)
    assert max(amounts.cost_micros for amounts in (*seen, end)) <= CAP
    assert CAP // 2 < end.cost_micros == sum(turn.usage.cost_micros for turn in turns), "nothing stays reserved"
    states = Counter((turn.state, turn.reason) for turn in turns)
    assert set(states) == {(TurnState.COMPLETED, ""), (TurnState.LIMITED, "QUOTA_EXCEEDED")}
    assert states[TurnState.COMPLETED, ""] == len(provider.requests), "whoever was refused has asked nothing"
    assert len(command_lines()) <= states[TurnState.COMPLETED, ""]


@pytest.mark.parametrize("kind", REPORTS)
async def test_a_report_that_cannot_be_true_costs_what_was_set_aside_or_seen(
    station: Station, provider: StandIn, kind: str
) -> None:
    provider.reply(lying(kind))
    turn = await talk(station)
    assert turn.state is TurnState.COMPLETED
    (request,) = provider.requests
    asked = len(json.dumps(request.body, ensure_ascii=False).encode())
    usage, most = turn.usage, Prices().most(MODEL, asked + 1_000, 2_000)
    assert 0 < usage.cost_micros < most
    assert usage.cost_estimated is (kind != "true")
    if kind in ("nothing", "zero", "negative", "no input"):
        assert asked // 2 < usage.input_tokens < asked + 1_000, "what the bytes can have been"
        assert usage.output_tokens == (20 if kind == "no input" else len("Good day"))
    if kind == "huge":
        assert usage.output_tokens == 2_000


@pytest.mark.parametrize("limit", ["max_cost_micros_per_session", "max_tokens_per_turn"])
async def test_a_call_that_the_limit_does_not_allow_is_not_made_and_leaves_no_process(
    station: Station, provider: StandIn, limit: str
) -> None:
    limits: dict[str, Any] = {limit: 1_000}
    turn = await talk(station, limits=Limits(**limits))
    assert (turn.state, turn.reason, turn.usage.model_calls) == (TurnState.LIMITED, "LIMIT_REACHED", 0)
    assert limit in turn.error_message
    assert provider.requests == []
    assert command_lines() == []


async def test_a_turn_that_meets_its_limit_within_ends_there_and_leaves_no_process(
    station: Station, provider: StandIn
) -> None:
    provider.reply(*(lying("too much", anthropic.tool(READ, {"path": "a"}, f"toolu_{n}")) for n in (1, 2)))
    turn = await talk(station, tools=("files.read",), limits=Limits(max_tokens_per_turn=8_000))
    assert (turn.state, turn.reason) == (TurnState.LIMITED, "LIMIT_REACHED")
    assert (turn.usage.model_calls, turn.usage.tool_calls) == (1, 1)
    assert len(provider.requests) == 1
    assert turn.usage.total_tokens <= 8_000
    assert command_lines() == []


async def test_at_a_limit_that_asks_nothing_waits_in_memory_and_the_turn_goes_on_when_it_is_allowed(
    station: Station, provider: StandIn
) -> None:
    provider.reply(
        lying("too much", anthropic.tool(READ, {"path": "a"}, "toolu_1")),
        lying("zero", anthropic.text("Done.")),
    )
    limits = Limits(max_tokens_per_session=8_000, on_breach=OnBreach.ASK)
    session_id = await station.create(
        model=MODEL, runtime=RuntimeName.CLAUDE, tools=("files.read",), max_output_tokens=2_000, limits=limits
    )
    started = await station.send(session_id, "write it")
    (request,) = await station.asked(session_id)
    assert request.breach is not None
    assert request.breach.limit == "max_tokens_per_session"

    async def nothing_waits() -> bool:
        return not command_lines() and not station.busy

    await until(nothing_waits)
    assert len(provider.requests) == 1
    await station.permissions.resolve(station.caller, session_id, request.id, ALLOW)
    turn = await station.ended(session_id, started)
    assert (turn.state, turn.usage.model_calls, turn.usage.tool_calls) == (TurnState.COMPLETED, 2, 1)
    assert len(provider.requests) == 2
    assert turn.usage.total_tokens <= 16_000
    happened = kinds(await station.events(session_id, started))
    assert happened.count("tool_call_started") == 1
    assert "limit_reached" not in happened


async def test_a_session_that_has_little_left_gets_a_short_answer_and_then_none(
    station: Station, provider: StandIn
) -> None:
    provider.reply(lying("true"), lying("too much"), lying("too much"))
    limits = Limits(max_tokens_per_session=5_000)
    session_id = await station.create(
        model=MODEL, runtime=RuntimeName.CLAUDE, tools=(), max_output_tokens=8_000, limits=limits
    )
    turns, processes = [], []
    for _ in range(3):
        turns.append(await station.ended(session_id, await station.send(session_id, "hello")))
        processes.append([process.pid for process in command_lines()])
    assert [turn.state for turn in turns] == [TurnState.COMPLETED, TurnState.COMPLETED, TurnState.LIMITED]
    first, second = (request.body["max_tokens"] for request in provider.requests)
    assert 16 <= second < first < 5_000
    assert processes[0] == processes[1] != []
    assert processes[2] == []
    assert 4_500 < (await station.session(session_id)).usage.total_tokens <= 5_000


async def test_every_attempt_at_an_answer_is_reserved(station: Station, provider: StandIn) -> None:
    cut = anthropic.cut(anthropic.text("Good ", "day"))
    provider.reply(lying("true"), cut, cut, lying("too much"))
    await talk(station)
    measured = parse(json.dumps(provider.requests[0].body, separators=(",", ":")).encode(), "claude-sonnet-5")
    assert measured is not None
    # What the shortest answer may cost, and one and a half times what an attempt costs that breaks off.
    limit = Prices().most(MODEL, measured.most_input_tokens, LEAST_OUTPUT_TOKENS) + 400
    turn = await talk(station, limits=Limits(max_cost_micros_per_turn=limit))
    assert turn.state is TurnState.LIMITED
    assert len(provider.requests) == 1 + 2, "what is left does not pay for a third attempt"
    assert turn.usage.model_calls == 2
    assert 0 < turn.usage.cost_micros <= limit
