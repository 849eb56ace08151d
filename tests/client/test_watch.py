"""Watching a session: in order, each event once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from stationmaster.v1 import event_pb2, session_pb2
from stationmaster_client import Client, Interruption, errors

from tests.client.stand_in import SESSION, delta, finished, message, serving, unavailable, watched

Batches = AsyncIterator[session_pb2.WatchSessionResponse]


async def sequences(client: Client, **options: Any) -> list[int]:
    """The sequences of a watch that ends by itself."""
    async with client.sessions.watch(SESSION, **options) as events:
        return [event.sequence async for event in events]


async def test_a_stream_that_breaks_again_and_again_neither_repeats_nor_skips() -> None:
    log = [delta(number) for number in range(1, 40)]
    asked: list[int] = []

    async def watch(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        asked.append(request.after_sequence)
        # Each connection overlaps what was seen, as a server does that resumes from an older place.
        start = max(0, request.after_sequence - 3)
        yield watched(*log[start : request.after_sequence + 4])
        yield watched(*log[start : request.after_sequence + 7])
        if request.after_sequence + 7 < len(log):
            await unavailable(context)

    async with serving(WatchSession=watch) as target, Client.connect(target) as client:
        assert await sequences(client) == list(range(1, 40))
    assert asked == [0, 7, 14, 21, 28, 35]


async def test_a_reader_is_told_of_an_interruption_and_where_it_goes_on() -> None:
    async def watch(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        yield watched(delta(request.after_sequence + 1))
        if not request.after_sequence:
            await unavailable(context)

    told: list[Interruption] = []
    async with serving(WatchSession=watch) as target, Client.connect(target) as client:
        assert await sequences(client, on_interruption=told.append) == [1, 2]
    assert [(one.attempt, one.after_sequence, type(one.error)) for one in told] == [(1, 1, errors.Unavailable)]


async def test_watching_goes_on_when_the_server_comes_back_on_the_same_port() -> None:
    async def first(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        yield watched(delta(1), delta(2))
        await asyncio.Event().wait()

    async def second(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        yield watched(*(delta(number) for number in range(request.after_sequence + 1, 5)))

    seen: list[int] = []
    async with serving(WatchSession=first) as target:
        client = Client.connect(target)
        events = client.sessions.watch(SESSION)
        seen += [(await anext(events)).sequence, (await anext(events)).sequence]
    async with serving(int(target.rpartition(":")[2]), WatchSession=second), client:
        seen += [event.sequence async for event in events]
    assert seen == [1, 2, 3, 4]


async def test_a_hole_that_a_later_message_replaces_is_allowed() -> None:
    log = [delta(1), delta(5), message(9, 2, 8), finished(10)]
    asked: list[int] = []

    async def watch(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        asked.append(request.after_sequence)
        yield watched(*(event for event in log if event.sequence > request.after_sequence))

    async with serving(WatchSession=watch) as target, Client.connect(target) as client:
        assert await sequences(client) == [1, 5, 9, 10]
        assert await sequences(client, after=6) == [9, 10]
    assert asked == [0, 6], "an explained hole is not read twice"


async def test_an_unexplained_hole_is_read_again_before_it_is_believed() -> None:
    async def watch(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        if request.after_sequence == 0:
            yield watched(delta(1), delta(4))
            await asyncio.Event().wait()
        yield watched(*(delta(number) for number in range(request.after_sequence + 1, 6)))

    async with serving(WatchSession=watch) as target, Client.connect(target) as client:
        assert await sequences(client) == [1, 2, 3, 4, 5]


async def test_events_that_are_missing_for_good_are_an_error_and_not_silence() -> None:
    log = [delta(1), delta(4), finished(5)]

    async def watch(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        yield watched(*(event for event in log if event.sequence > request.after_sequence))

    async with serving(WatchSession=watch) as target, Client.connect(target) as client:
        with pytest.raises(errors.DataLoss, match="2 to 3"):
            await sequences(client)


async def test_a_refusal_is_raised_and_not_tried_again() -> None:
    calls = 0

    async def watch(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        nonlocal calls
        calls += 1
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such session")
        yield watched()

    async with serving(WatchSession=watch) as target, Client.connect(target) as client:
        with pytest.raises(errors.NotFound):
            await sequences(client)
    assert calls == 1


async def test_patience_ends() -> None:
    async with Client.connect("127.0.0.1:1") as client:
        with pytest.raises(errors.Unavailable):
            await sequences(client, patience=timedelta(milliseconds=10))


async def test_a_connection_that_fell_silent_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stationmaster_client.stream.SILENCE_LIMIT_SECONDS", 0.2)

    async def watch(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        yield watched(delta(request.after_sequence + 1))
        if not request.after_sequence:
            await asyncio.Event().wait()

    async with serving(WatchSession=watch) as target, Client.connect(target) as client:
        assert await sequences(client) == [1, 2]


@pytest.mark.parametrize("leave", ["async with", "forgotten", "cancelled"])
async def test_leaving_a_stream_ends_the_call_on_the_server(leave: str) -> None:
    ended = asyncio.Event()

    async def watch(request: session_pb2.WatchSessionRequest, context: Any) -> Batches:
        context.add_done_callback(lambda _: ended.set())
        yield watched(delta(1))
        await asyncio.Event().wait()

    async def read(client: Client) -> event_pb2.Event:
        if leave == "async with":
            async with client.sessions.watch(SESSION) as events:
                return await anext(events)
        async for event in client.sessions.watch(SESSION):
            if leave == "forgotten":
                return event
        raise AssertionError

    async with serving(WatchSession=watch) as target, Client.connect(target) as client:
        task = asyncio.create_task(read(client))
        if leave == "cancelled":
            await asyncio.sleep(0.1)
            task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(5):
            await ended.wait()
