"""The running time of a session: the sum of its turns', and a limit like the others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from stationmaster_server.agents.model import Limits, OnBreach
from stationmaster_server.agents.runtime import Usage
from stationmaster_server.sessions.limits import time_left
from stationmaster_server.sessions.model import PermissionDecision, TurnState
from stationmaster_server.sessions.permissions import Answer

from tests.sessions.station import Station

SECOND = timedelta(seconds=1)
SLOW = "/slow 50\n/say 2000"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"max_turn_duration": 5 * SECOND}, (4 * SECOND, "max_turn_duration")),
        ({"max_session_duration": 5 * SECOND}, (2 * SECOND, "max_session_duration")),
        ({"max_turn_duration": 5 * SECOND, "max_session_duration": 5 * SECOND}, (2 * SECOND, "max_session_duration")),
        ({"max_turn_duration": 2 * SECOND, "max_session_duration": 5 * SECOND}, (SECOND, "max_turn_duration")),
    ],
)
def test_the_limit_that_leaves_less_is_the_one_that_counts(
    limits: dict[str, Any], expected: tuple[timedelta, str] | None
) -> None:
    left = time_left(Limits(**limits), Usage(running_time=3 * SECOND), Usage(running_time=SECOND))
    assert (left and (left[0], left[1].limit)) == expected


async def test_the_turn_that_uses_up_the_session_ends_and_no_other_runs(station: Station) -> None:
    session_id = await station.create()
    before = await station.ended(session_id, await station.send(session_id, "/say 3"))
    limit = before.usage.running_time + SECOND
    await station.sessions.update(station.caller, session_id, {"limits": Limits(max_session_duration=limit)}, "")
    turn = await station.ended(session_id, await station.send(session_id, SLOW))
    assert (before.state, turn.state, turn.reason) == (TurnState.COMPLETED, TurnState.LIMITED, "LIMIT_REACHED")
    assert "max_session_duration is " in turn.error_message
    session = await station.session(session_id)
    assert session.usage.running_time == before.usage.running_time + turn.usage.running_time >= limit
    again = await station.ended(session_id, await station.send(session_id, "/say 3"))
    assert (again.state, again.usage.model_calls) == (TurnState.LIMITED, 0)


async def test_the_session_may_run_as_long_once_more_for_every_time_that_somebody_allows_it(station: Station) -> None:
    limits = Limits(max_session_duration=2 * SECOND, on_breach=OnBreach.ASK)
    session_id = await station.create(limits=limits)
    started = await station.send(session_id, SLOW)
    (request,) = await station.asked(session_id)
    assert request.breach is not None
    assert (request.breach.limit, request.breach.limit_value) == ("max_session_duration", 2)
    allow = Answer(PermissionDecision.ALLOW_ONCE)
    await station.permissions.resolve(station.caller, session_id, request.id, allow)
    enough = Limits(max_session_duration=timedelta(hours=1), on_breach=OnBreach.ASK)
    await station.sessions.update(station.caller, session_id, {"limits": enough}, "")
    await station.turns.cancel(station.caller, session_id, started.turn_id)
    await station.ended(session_id, started)
    session = await station.session(session_id)
    assert session.portions == {"max_session_duration": 1}
    again = await station.ended(session_id, await station.send(session_id, "/say 3"))
    assert again.state is TurnState.COMPLETED
