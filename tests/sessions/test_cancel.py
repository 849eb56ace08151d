"""Cancelling a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
from stationmaster_server.agents.model import Limits, OnBreach
from stationmaster_server.agents.runtime import (
    ModelCallStarted,
    PermissionNeeded,
    Runtime,
    Text,
    ToolResult,
    TurnEvent,
    TurnInput,
)
from stationmaster_server.db.caller import Caller
from stationmaster_server.errors import FailedPrecondition, Reason
from stationmaster_server.sessions.model import MessageRole, PermissionState, SessionState, TurnState

from tests.sessions.station import Station, open_station, text_of
from tests.waiting import until

SLOW = "/slow 20\n/say 2000"


async def test_cancel_stops_the_model_and_keeps_the_partial_text(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, SLOW)
    await station.running(session_id, started)
    began = monotonic()
    await station.turns.cancel(station.caller, session_id, started.turn_id)
    events = await station.events(session_id, started)
    assert monotonic() - began < 5, "a cancel is meant to take a second at most; five allow for a busy machine"
    assert events[-1].body["state"] == "CANCELLED"
    partial = (await station.messages(session_id))[-1]
    assert partial.interrupted
    assert partial.parts == (Text(text_of(events)),)
    assert (await station.session(session_id)).state is SessionState.ACTIVE


async def test_cancel_reaches_the_server_that_runs_the_turn(
    station: Station,
    other_station: Station,
) -> None:
    session_id = await station.create()
    started = await station.send(session_id, SLOW)
    await station.running(session_id, started)
    await other_station.turns.cancel(other_station.caller, session_id, started.turn_id)
    assert (await other_station.ended(session_id, started)).state is TurnState.CANCELLED


async def test_cancelling_a_turn_that_waits_for_permission_withdraws_the_request(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, '/tool files.write {"path": "a.txt", "content": "a"}')
    await station.asked(session_id)
    turn = await station.turns.cancel(station.caller, session_id, started.turn_id)
    assert turn.state is TurnState.CANCELLED
    events = await station.events(session_id, started)
    resolved = [event for event in events if event.kind == "permission_resolved"]
    assert [event.body["state"] for event in resolved] == [PermissionState.WITHDRAWN]
    newest = (await station.messages(session_id))[-1]
    assert newest.role is MessageRole.TOOL
    assert isinstance(newest.parts[0], ToolResult)
    assert newest.parts[0].is_error, "a model accepts no call without a result"
    assert (await station.session(session_id)).state is SessionState.ACTIVE
    assert (await station.run(session_id, "/say 2"))[-1].body["state"] == "COMPLETED"


async def test_a_queued_turn_that_is_cancelled_never_runs(station: Station) -> None:
    session_id = await station.create()
    running = await station.send(session_id, "/slow 5\n/say 100")
    queued = await station.send(session_id, "/say 1")
    assert (await station.turns.cancel(station.caller, session_id, queued.turn_id)).state is TurnState.CANCELLED
    assert (await station.ended(session_id, running)).state is TurnState.COMPLETED
    assert [message.turn_id for message in await station.messages(session_id)] == [running.turn_id] * 2


async def test_stopping_a_queued_turn_takes_locks_in_the_order_of_a_worker_that_begins_it(station: Station) -> None:
    organization_id = station.caller.tenant.organization_id
    session_id = await station.create()
    await station.send(session_id, '/tool files.write {"path": "a.txt", "content": "a"}')
    await station.asked(session_id)
    queued = await station.send(session_id, "/say 1")

    async def cancel_waits() -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        async with station.database.system(autocommit=True) as look:
            return bool(await look.fetchval(waiting))

    async with station.database.system() as worker:
        await station.services.log.set_fence(worker, organization_id, session_id, None)
        cancelling = asyncio.create_task(station.turns.cancel(station.caller, session_id, queued.turn_id))
        await until(cancel_waits)
        item = "SELECT state FROM work_items WHERE organization_id = $1 AND item_id = $2 FOR SHARE"
        assert await worker.fetchval(item, organization_id, queued.turn_id), "without a deadlock"
    assert (await cancelling).state is TurnState.CANCELLED


async def test_a_turn_that_has_ended_cannot_be_cancelled(station: Station) -> None:
    session_id = await station.create()
    started = await station.send(session_id, "/say 1")
    await station.ended(session_id, started)
    with pytest.raises(FailedPrecondition) as refused:
        await station.turns.cancel(station.caller, session_id, started.turn_id)
    assert refused.value.reason is Reason.TURN_FINISHED


class Interrupted:
    """A runtime that does something before it says one thing."""

    def __init__(self, inner: Runtime, before: type[TurnEvent], do: Callable[[TurnInput], Awaitable[object]]) -> None:
        self._inner, self._before, self._do = inner, before, do

    async def run(self, turn: TurnInput) -> AsyncGenerator[TurnEvent, None]:
        """What the other one says."""
        async with aclosing(self._inner.run(turn)) as events:
            async for event in events:
                if isinstance(event, self._before):
                    await self._do(turn)
                yield event

    async def close_session(self, session_id: UUID) -> None:
        """As the other one."""
        await self._inner.close_session(session_id)


@pytest.mark.parametrize(
    ("before", "spec"),
    [
        (PermissionNeeded, {}),
        (ModelCallStarted, {"limits": Limits(max_tokens_per_turn=1, on_breach=OnBreach.ASK)}),
    ],
    ids=["a tool", "a limit"],
)
async def test_a_turn_that_is_cancelled_just_before_it_would_ask_ends_and_asks_nobody(
    database_url: str, tmp_path: Path, caller: Caller, before: type[TurnEvent], spec: dict[str, Any]
) -> None:
    others: list[Station] = []

    async def cancel(turn: TurnInput) -> None:
        await others[0].turns.cancel(caller, turn.session_id, turn.turn_id)

    async with (
        open_station(database_url, tmp_path, caller) as other,
        open_station(
            database_url, tmp_path, caller, around=lambda runtime: Interrupted(runtime, before, cancel)
        ) as station,
    ):
        await other.worker.stop(timedelta(0))
        others.append(other)
        session_id = await station.create(**spec)
        events = await station.run(session_id, '/tool files.write {"path": "a.txt", "content": "a"}')
        assert events[-1].body["state"] == "CANCELLED"
        assert "permission_requested" not in [event.kind for event in events]
        assert (await station.session(session_id)).state is SessionState.ACTIVE
