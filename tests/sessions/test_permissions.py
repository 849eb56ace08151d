"""Permission requests: durable, answered once, held nowhere in memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from stationmaster_server.agents.model import Effect, OnPermissionTimeout, PermissionSettings, ToolPolicy
from stationmaster_server.agents.runtime import ToolResult
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.errors import FailedPrecondition, InvalidArgument, Reason
from stationmaster_server.sessions.model import (
    BusyPolicy,
    PermissionDecision,
    PermissionRequest,
    PermissionState,
    SessionState,
    TurnState,
)
from stationmaster_server.sessions.permissions import Answer

from tests.sessions.builders import repeating
from tests.sessions.station import Station, kinds, open_station

WRITE = '/tool files.write {"path": "a.txt", "content": "one"}'
ALLOW = Answer(PermissionDecision.ALLOW_ONCE)


async def resolve(station: Station, request: PermissionRequest, answer: Answer = ALLOW) -> PermissionRequest:
    return await station.permissions.resolve(station.caller, request.session_id, request.id, answer)


async def results(station: Station, request: PermissionRequest) -> list[ToolResult]:
    messages = await station.messages(request.session_id)
    return [part for message in messages for part in message.parts if isinstance(part, ToolResult)]


async def test_a_tool_that_asks_runs_once_it_is_allowed(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    assert (await station.session(session_id)).state is SessionState.AWAITING_PERMISSION
    assert not (station.workspaces.path(session_id) / "a.txt").exists()
    assert station.busy == 0, "nothing is held while a person thinks"
    resolved = await resolve(station, request)
    assert resolved.state is PermissionState.ALLOWED
    assert (await station.ended(session_id, started)).state is TurnState.COMPLETED
    assert (station.workspaces.path(session_id) / "a.txt").read_text() == "one"
    assert (await station.session(session_id)).state is SessionState.ACTIVE


async def test_waiting_for_a_permission_is_no_failed_attempt(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    await resolve(station, request)
    events = await station.events(session_id, started)
    begun = [(event.body["attempt"], event.body["resumed"]) for event in events if event.kind == "turn_started"]
    assert begun == [(1, False), (1, True)]
    assert (await station.turn(session_id, started)).attempts == 1


async def test_a_denied_call_does_not_run_and_the_model_is_told_why(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    await resolve(station, request, Answer(PermissionDecision.DENY, "not on a Sunday"))
    assert (await station.ended(session_id, started)).state is TurnState.COMPLETED
    (result,) = await results(station, request)
    assert result.is_error
    assert "not on a Sunday" in result.content
    assert not (station.workspaces.path(session_id) / "a.txt").exists()


async def test_edited_arguments_are_those_the_call_runs_with(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    await resolve(
        station, request, Answer(PermissionDecision.ALLOW_ONCE, edited_arguments={"path": "b.txt", "content": "two"})
    )
    await station.ended(session_id, started)
    assert not (station.workspaces.path(session_id) / "a.txt").exists()
    assert (station.workspaces.path(session_id) / "b.txt").read_text() == "two"


async def test_allowed_for_the_session_is_not_asked_again(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    await resolve(station, request, Answer(PermissionDecision.ALLOW_FOR_SESSION))
    await station.ended(session_id, started)
    again = await station.run(session_id, WRITE)
    assert "permission_requested" not in kinds(again)
    assert again[-1].body["state"] == "COMPLETED"


async def test_allowed_once_is_asked_again(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    await resolve(station, request)
    await station.ended(session_id, started)
    await station.send(session_id, WRITE)
    assert len(await station.asked(session_id)) == 1


async def test_of_racing_answers_exactly_one_wins(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    answers = await asyncio.gather(*(resolve(station, request) for _ in range(10)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, FailedPrecondition)]
    assert len(refused) == 9
    assert {error.reason for error in refused} == {Reason.PERMISSION_ALREADY_RESOLVED}
    await station.ended(session_id, started)
    assert len(await results(station, request)) == 1, "a second answer is never a second run"


async def test_a_repeated_answer_gets_the_first_one(station: Station) -> None:
    session_id = await station.create()
    await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    station.caller = repeating(station.caller)
    first = await resolve(station, request)
    assert await resolve(station, request) == first


async def test_a_turn_goes_on_when_its_last_request_is_answered(station: Station) -> None:
    session_id = await station.create()
    two = f"/tools\n{WRITE}\n{WRITE.replace('a.txt', 'b.txt')}"
    started = await station.send(session_id, two)
    first, second = await station.asked(session_id)
    await resolve(station, first)
    assert (await station.session(session_id)).state is SessionState.AWAITING_PERMISSION
    await resolve(station, second, Answer(PermissionDecision.DENY))
    assert (await station.ended(session_id, started)).state is TurnState.COMPLETED
    assert [result.is_error for result in await results(station, first)] == [False, True]


async def test_one_word_for_the_session_answers_all_requests_for_the_tool(station: Station) -> None:
    session_id = await station.create()
    two = f"/tools\n{WRITE}\n{WRITE.replace('a.txt', 'b.txt')}"
    started = await station.send(session_id, two)
    first, _ = await station.asked(session_id)
    await resolve(station, first, Answer(PermissionDecision.ALLOW_FOR_SESSION))
    assert (await station.ended(session_id, started)).state is TurnState.COMPLETED
    assert [result.is_error for result in await results(station, first)] == [False, False]


async def test_a_request_survives_its_server(database_url: str, tmp_path: Path, caller: Caller) -> None:
    async with open_station(database_url, tmp_path / "workspaces", caller) as first:
        session_id = await first.create()
        started = await first.send(session_id, WRITE)
        await first.asked(session_id)
        await first.kill()
    async with open_station(database_url, tmp_path / "workspaces", caller) as second:
        (request,) = await second.asked(session_id)
        await resolve(second, request)
        assert (await second.ended(session_id, started)).state is TurnState.COMPLETED
        assert (second.workspaces.path(session_id) / "a.txt").read_text() == "one"


async def test_a_policy_that_denies_is_not_overruled_by_one_that_allows(station: Station) -> None:
    policies = (ToolPolicy("files.*", Effect.ALLOW), ToolPolicy("files.write", Effect.DENY))
    session_id = await station.create(tool_policies=policies)
    events = await station.run(session_id, WRITE)
    assert "permission_requested" not in kinds(events)
    (finished,) = [event for event in events if event.kind == "tool_call_finished"]
    assert finished.body["result"]["is_error"]


async def test_a_policy_that_allows_is_not_asked(station: Station) -> None:
    session_id = await station.create(tool_policies=(ToolPolicy("files.*", Effect.ALLOW),))
    events = await station.run(session_id, WRITE)
    assert "permission_requested" not in kinds(events)
    assert (station.workspaces.path(session_id) / "a.txt").read_text() == "one"


async def expired(station: Station, on_timeout: OnPermissionTimeout) -> PermissionRequest:
    settings = PermissionSettings(timedelta(milliseconds=1), on_timeout)
    session_id = await station.create(permissions=settings)
    await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    return request


async def test_by_default_a_request_that_nobody_answers_is_denied(station: Station) -> None:
    request = await expired(station, OnPermissionTimeout.DENY)
    assert await station.permissions.expire_due() == 1
    await station.becomes(request.session_id, SessionState.ACTIVE)
    (result,) = await results(station, request)
    assert result.is_error
    with pytest.raises(FailedPrecondition) as refused:
        await resolve(station, request)
    assert refused.value.reason is Reason.PERMISSION_ALREADY_RESOLVED


async def test_a_request_may_wait_for_ever(station: Station) -> None:
    request = await expired(station, OnPermissionTimeout.WAIT)
    assert request.expires_at is None
    assert await station.permissions.expire_due() == 0


async def test_a_request_that_nobody_answers_may_pause_the_session(station: Station) -> None:
    request = await expired(station, OnPermissionTimeout.PAUSE)
    assert await station.permissions.expire_due() == 1
    assert (await station.session(request.session_id)).state is SessionState.PAUSED
    await station.sessions.resume(station.caller, request.session_id)
    assert (await station.run(request.session_id, "/say 2"))[-1].body["state"] == "COMPLETED"


async def test_racing_sweeps_expire_a_request_once(
    station: Station,
    other_station: Station,
) -> None:
    request = await expired(station, OnPermissionTimeout.DENY)
    await asyncio.gather(*(each.permissions.expire_due() for each in (station, other_station) * 3))
    await station.becomes(request.session_id, SessionState.ACTIVE)
    assert len(await results(station, request)) == 1


async def test_an_answer_must_make_sense(station: Station) -> None:
    session_id = await station.create()
    await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    with pytest.raises(InvalidArgument):
        await resolve(station, request, Answer(PermissionDecision.DENY, edited_arguments={"path": "b"}))
    with pytest.raises(InvalidArgument):
        await resolve(station, request, Answer(PermissionDecision.ALLOW_ONCE, message="why"))


async def test_a_turn_rolled_back_while_it_waits_withdraws_its_request(station: Station) -> None:
    session_id = await station.create()
    first = await station.send(session_id, WRITE)
    (request,) = await station.asked(session_id)
    second = await station.send(session_id, "/say 2", busy=BusyPolicy.ROLLBACK)
    assert (await station.ended(session_id, second)).state is TurnState.COMPLETED
    assert (await station.turn(session_id, first)).state is TurnState.ROLLED_BACK
    page = await station.permissions.list_requests(station.caller, session_id, "", "", PageRequest(10))
    assert [(each.id, each.state) for each in page.items] == [(request.id, PermissionState.WITHDRAWN)]


async def test_a_request_that_cannot_be_ended_does_not_hold_up_the_others(station: Station) -> None:
    broken = await expired(station, OnPermissionTimeout.DENY)
    async with station.database.system() as tx:
        await tx.execute("UPDATE work_items SET state = 'DEAD', finished_at = now() WHERE item_id = $1", broken.turn_id)
    other = await expired(station, OnPermissionTimeout.DENY)
    assert await station.permissions.expire_due() == 1
    await station.becomes(other.session_id, SessionState.ACTIVE)
