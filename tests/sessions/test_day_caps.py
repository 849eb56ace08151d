"""Caps of a day on tool calls, tokens and running time, as turns meet them; and what is given back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from stationmaster_server.agents.model import Limits, OnBreach
from stationmaster_server.db.caller import Caller
from stationmaster_server.identity import quota_store
from stationmaster_server.identity.model import Amounts, Effect, ToolPolicy
from stationmaster_server.sessions.model import PermissionDecision, PermissionRequest, SessionState, Turn, TurnState
from stationmaster_server.sessions.permissions import Answer
from stationmaster_server.sessions.turns import Started

from tests.sessions.caps import cap, used_today, watched
from tests.sessions.station import Station, kinds, open_station
from tests.waiting import until

ALLOW, DENY = Answer(PermissionDecision.ALLOW_ONCE), Answer(PermissionDecision.DENY)
TURNS = 100
# So many turns keep the loop busy: no lease is to be lost by that.
LEASE = timedelta(seconds=30)
TWO_CALLS = '/tools\n/tool math.evaluate {"expression": "1+1"}\n/tool math.evaluate {"expression": "2+2"}'
SLOW = "/slow 50\n/say 2000"
OVER = {(TurnState.COMPLETED, ""), (TurnState.LIMITED, "QUOTA_EXCEEDED")}
LITTLE: dict[str, tuple[Any, Any, str]] = {
    "max_tokens_per_day": (200, 1_000_000, "/say 3"),
    "max_tool_calls_per_day": (1, 2, TWO_CALLS),
    "max_running_time_per_day": (timedelta(0), timedelta(hours=1), "/say 3"),
}


@pytest_asyncio.fixture
async def stations(database_url: str, tmp_path: Path, caller: Caller) -> AsyncIterator[tuple[Station, Station]]:
    """Two servers on one database."""
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(open_station(database_url, tmp_path / "workspaces", caller, lease=LEASE))
            for _ in range(2)
        ]
        yield one, two


def subject_of(caller: Caller, whose: str) -> UUID:
    return caller.tenant.user_id if whose == "user" else caller.tenant.organization_id


async def race(stations: tuple[Station, Station], text: str) -> list[Turn]:
    """As many turns as there are, on both servers, each in a session of its own."""

    async def talk(station: Station) -> Turn:
        session_id = await station.create()
        return await station.ended(session_id, await station.send(session_id, text), seconds=120)

    return await asyncio.gather(*(talk(station) for station in stations * (TURNS // 2)))


async def paid(station: Station) -> int:
    """How many turns have running time set aside."""
    async with station.database.system(autocommit=True) as tx:
        count: int = await tx.fetchval("SELECT count(*) FROM turns WHERE paid_until IS NOT NULL")
    return count


@pytest.mark.parametrize("whose", ["user", "organization"])
async def test_tool_calls_of_racing_turns_never_pass_the_cap(
    stations: tuple[Station, Station], caller: Caller, whose: str
) -> None:
    subject, limit = subject_of(caller, whose), 50
    await cap(stations[0], subject, max_tool_calls_per_day=limit)
    async with watched(stations[0], subject) as seen:
        turns = await race(stations, TWO_CALLS)
    assert max(amounts.tool_calls for amounts in seen) <= limit
    assert (await used_today(stations[0], subject)).tool_calls == limit
    assert sum(turn.usage.tool_calls for turn in turns) == limit
    assert set(Counter((turn.state, turn.reason) for turn in turns)) <= OVER
    (said,) = {turn.error_message for turn in turns if turn.state is TurnState.LIMITED}
    assert f"max_tool_calls_per_day is {limit}; {limit} are used and 1 more" in said


@pytest.mark.parametrize("whose", ["user", "organization"])
async def test_running_time_of_racing_turns_never_passes_the_cap(
    stations: tuple[Station, Station], caller: Caller, whose: str
) -> None:
    subject, limit = subject_of(caller, whose), timedelta(seconds=15)
    await cap(stations[0], subject, max_running_time_per_day=limit)
    async with watched(stations[0], subject) as seen:
        turns = await race(stations, "/slow 50\n/say 20")
    assert max(amounts.running_time for amounts in seen) <= limit
    end = (await used_today(stations[0], subject)).running_time
    assert timedelta(0) < end <= limit
    assert set(Counter((turn.state, turn.reason) for turn in turns)) <= OVER
    assert any(turn.state is TurnState.LIMITED for turn in turns), "a hundred seconds do not fit"
    assert await paid(stations[0]) == 0


async def test_a_turn_that_runs_into_the_cap_is_stopped_there(station: Station) -> None:
    user = station.caller.tenant.user_id
    await cap(station, user, max_running_time_per_day=timedelta(seconds=2))
    session_id = await station.create()
    started = await station.send(session_id, SLOW)
    turn = await station.ended(session_id, started)
    assert (turn.state, turn.reason) == (TurnState.LIMITED, "QUOTA_EXCEEDED")
    assert f"the quota of users/{user} is used up: max_running_time_per_day is 2 s" in turn.error_message
    events = await station.events(session_id, started)
    (reached,) = [event for event in events if event.kind == "limit_reached"]
    assert reached.body["limit"] == f"users/{user}/quota max_running_time_per_day"
    assert timedelta(0) < (await used_today(station, user)).running_time <= timedelta(seconds=2)


@pytest.mark.parametrize("quota", LITTLE)
async def test_at_a_cap_that_asks_the_turn_waits_and_goes_on_once_there_is_more(station: Station, quota: str) -> None:
    user = station.caller.tenant.user_id
    little, enough, text = LITTLE[quota]
    await cap(station, user, **{quota: little})
    session_id = await station.create(limits=Limits(on_breach=OnBreach.ASK))
    started = await station.send(session_id, text)
    (first,) = await station.asked(session_id)
    assert first.breach is not None
    assert first.breach.limit == f"users/{user}/quota {quota}"
    await station.permissions.resolve(station.caller, session_id, first.id, ALLOW)

    async def another() -> list[PermissionRequest]:
        return [one for one in await station.asked(session_id) if one.id != first.id]

    (second,) = await until(another)  # no answer lifts a quota
    assert await paid(station) == 0
    await cap(station, user, **{quota: enough})
    await station.permissions.resolve(station.caller, session_id, second.id, ALLOW)
    turn = await station.ended(session_id, started)
    assert turn.state is TurnState.COMPLETED
    happened = kinds(await station.events(session_id, started))
    assert happened.count("tool_call_started") == turn.usage.tool_calls


@pytest.mark.parametrize("quota", LITTLE)
async def test_denied_the_turn_ends_at_the_cap(station: Station, quota: str) -> None:
    little, _, text = LITTLE[quota]
    await cap(station, station.caller.tenant.organization_id, **{quota: little})
    session_id = await station.create(limits=Limits(on_breach=OnBreach.ASK))
    started = await station.send(session_id, text)
    (request,) = await station.asked(session_id)
    await station.permissions.resolve(station.caller, session_id, request.id, DENY)
    turn = await station.ended(session_id, started)
    assert (turn.state, turn.reason) == (TurnState.LIMITED, "QUOTA_EXCEEDED")
    assert f"organizations/{station.caller.tenant.organization_id}/quota {quota}" in turn.error_message


async def hold_long(station: Station, hours: int) -> None:
    """Make the running time that the one turn has set aside so much longer."""
    async with station.database.system() as tx:
        await tx.execute("UPDATE turns SET paid_until = paid_until + make_interval(hours => $1)", hours)
        await tx.execute(
            """UPDATE quota_usage SET running_time = running_time + make_interval(hours => $1)
               WHERE (subject_id, shard) IN (
                   SELECT DISTINCT ON (subject_id) subject_id, shard FROM quota_usage WHERE running_time > '0')""",
            hours,
        )


async def running(station: Station, **spec: Any) -> tuple[UUID, Started]:
    """A turn that has ten hours set aside."""
    for subject in (station.caller.tenant.user_id, station.caller.tenant.organization_id):
        await cap(station, subject, max_running_time_per_day=timedelta(hours=100))
    session_id = await station.create(**spec)
    started = await station.send(session_id, "/slow 15\n/say 300")
    await station.running(session_id, started)
    await hold_long(station, 10)
    return session_id, started


async def check_given_back(station: Station) -> None:
    """What has not passed is nobody's any more."""
    assert await paid(station) == 0
    for subject in (station.caller.tenant.user_id, station.caller.tenant.organization_id):
        assert timedelta(0) < (await used_today(station, subject)).running_time < timedelta(hours=10)


async def test_time_that_a_turn_does_not_need_is_given_back_at_its_end(station: Station) -> None:
    session_id, started = await running(station)
    assert (await used_today(station, station.caller.tenant.user_id)).running_time > timedelta(hours=10)
    assert (await station.ended(session_id, started)).state is TurnState.COMPLETED
    await check_given_back(station)


async def test_time_of_a_cancelled_turn_is_given_back(station: Station) -> None:
    session_id, started = await running(station)
    await station.turns.cancel(station.caller, session_id, started.turn_id)
    assert (await station.ended(session_id, started)).state is TurnState.CANCELLED
    await check_given_back(station)


async def test_time_of_a_dead_server_is_given_back(station: Station, other_station: Station) -> None:
    session_id, started = await running(station)
    await station.kill()
    await other_station.becomes(session_id, SessionState.ACTIVE)
    assert (await other_station.turn(session_id, started)).state is TurnState.COMPLETED
    await check_given_back(other_station)


async def test_while_a_turn_waits_for_a_permission_no_time_is_held_and_none_is_counted(station: Station) -> None:
    user = station.caller.tenant.user_id
    await cap(station, user, max_running_time_per_day=timedelta(hours=100))
    session_id = await station.create(tool_policies=(ToolPolicy("math.*", Effect.ASK),))
    started = await station.send(session_id, '/tool math.evaluate {"expression": "1+1"}')
    (request,) = await station.asked(session_id)
    assert await paid(station) == 0
    held = await used_today(station, user)
    assert timedelta(0) < held.running_time < timedelta(minutes=1)
    assert await used_today(station, user) == held
    answered = await station.permissions.resolve(station.caller, session_id, request.id, ALLOW)
    turn = await station.ended(session_id, started)
    assert turn.state is TurnState.COMPLETED
    assert turn.started_at is not None
    assert turn.finished_at is not None
    assert answered.resolved_at is not None
    waited = answered.resolved_at - request.created_at
    assert timedelta(0) < turn.usage.running_time <= turn.finished_at - turn.started_at - waited
    assert (await station.session(session_id)).usage.running_time == turn.usage.running_time


async def test_tokens_that_a_dead_server_had_set_aside_count_as_used(station: Station, other_station: Station) -> None:
    user, limit = station.caller.tenant.user_id, 10_000
    await cap(station, user, max_tokens_per_day=limit)
    session_id = await station.create(max_output_tokens=1_000)
    started = await station.send(session_id, "/slow 10\n/say 150")
    await station.running(session_id, started)
    held = (await used_today(station, user)).tokens
    assert held > 1_000
    await station.kill()
    await other_station.becomes(session_id, SessionState.ACTIVE)
    turn = await other_station.turn(session_id, started)
    assert turn.state is TurnState.COMPLETED
    assert (await used_today(other_station, user)).tokens == held + turn.usage.total_tokens <= limit


async def test_where_nothing_of_the_day_is_limited_a_turn_asks_no_quota(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await station.create()
    asked: list[str] = []
    for name in ("lock_subjects", "get_used", "add", "today"):
        monkeypatch.setattr(quota_store, name, lambda *_, name=name, **__: asked.append(name))
    assert (await station.run(session_id, TWO_CALLS))[-1].body["state"] == TurnState.COMPLETED
    assert asked == []
    monkeypatch.undo()
    assert await used_today(station, station.caller.tenant.user_id) == Amounts()
