"""Many readers, readers that stop reading, and many calls at once: against a server in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from time import monotonic
from typing import Any

import grpc
import psutil
import pytest
from stationmaster.v1 import identity_pb2, session_pb2

from tests.contract.world import Caller, connect
from tests.fixtures.server import ServerProcess, StartServer
from tests.promises.valid import BY_NAME, invoke, make_session
from tests.waiting import until

KIB, MIB = 1024, 1024 * 1024
MOST_KIB_PER_WATCHER = 64
MOST_MIB_FOR_A_READER = 16
CHANNELS = 4
READERS_OF_A_SESSION = 10
WATCH = BY_NAME["WatchSession"].path
LONG_REASON = "\N{STEAM LOCOMOTIVE}" * 1000
"""As much as a reason may be: 4 KB in an event."""


def tell(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """A figure, for whoever runs the test."""
    with capsys.disabled():
        sys.stdout.write(f"\n  {text}\n")


@asynccontextmanager
async def served(start: StartServer, database_url: str) -> AsyncIterator[tuple[ServerProcess, Caller]]:
    """A server process, and its operator."""
    server = await start(database_url=database_url)
    async with connect(server.target, server.admin_key) as caller:
        yield server, caller


def memory(server: ServerProcess) -> int:
    """Bytes of memory that the server has."""
    return int(psutil.Process(server.pid).memory_info().rss)


class Watchers:
    """Readers of sessions; each has had its first batch when `open` returns."""

    def __init__(self, target: str, metadata: Any) -> None:
        self._target = target
        self._metadata = metadata
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._opened = asyncio.Semaphore(0)
        self.told = 0
        """How many have had the next event."""

    async def open(self, sessions: list[str], each: int) -> None:
        """Open `each` streams of every session, 200 at a time."""
        channels = [await self._stack.enter_async_context(self._channel(n)) for n in range(CHANNELS)]
        calls: list[Any] = [channel.unary_stream(WATCH) for channel in channels]
        gate = asyncio.Semaphore(200)
        for number, name in enumerate(sessions * each):
            request = session_pb2.WatchSessionRequest(name=name).SerializeToString()
            self._tasks.append(asyncio.create_task(self._read(calls[number % CHANNELS], request, gate)))
        for _ in self._tasks:
            await self._opened.acquire()

    def _channel(self, number: int) -> grpc.aio.Channel:
        # Channels of equal options share a connection.
        return grpc.aio.insecure_channel(self._target, options=(("test.number", number),))

    async def _read(self, call: Any, request: bytes, gate: asyncio.Semaphore) -> None:
        async with gate:
            stream = call(request, metadata=self._metadata)
            await stream.read()
        self._opened.release()
        while True:
            batch = session_pb2.WatchSessionResponse.FromString(await stream.read())
            if any(event.HasField("session_updated") for event in batch.events):
                self.told += 1
                break
        await stream.read()  # stays open

    async def all_told(self) -> bool:
        """Whether every one has had the next event."""
        return self.told == len(self._tasks)

    async def close(self) -> None:
        """Go away."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()


async def idle_watchers(start: StartServer, database_url: str, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """So many idle watchers: what each costs, and that each gets the next event."""
    async with served(start, database_url) as (server, caller):
        sessions = [await make_session(caller) for _ in range(count // READERS_OF_A_SESSION)]
        warm = Watchers(server.target, caller.metadata)
        await warm.open(sessions[:20], READERS_OF_A_SESSION)  # what the first streams alone cost
        await warm.close()
        before = memory(server)
        watchers = Watchers(server.target, caller.metadata)
        await watchers.open(sessions, READERS_OF_A_SESSION)
        kib = (memory(server) - before) / count / KIB
        tell(capsys, f"{count} idle watchers: {kib:.1f} KiB of the server's memory each")
        began = monotonic()
        for name in sessions:
            await update(caller, name)
        await until(watchers.all_told, seconds=60)
        tell(capsys, f"{count} watchers had the next event {monotonic() - began:.1f} s after its first was written")
        await watchers.close()
        assert kib < MOST_KIB_PER_WATCHER
        assert "ERROR" not in server.text


async def update(caller: Caller, name: str) -> None:
    session = session_pb2.Session(name=name, display_name="changed")
    await invoke(caller, "UpdateSession", session_pb2.UpdateSessionRequest(session=session))


async def test_a_thousand_idle_watchers_all_get_the_next_event(
    server_process: StartServer, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await idle_watchers(server_process, database_url, 1_000, capsys)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_ten_thousand_idle_watchers_all_get_the_next_event(
    server_process: StartServer, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await idle_watchers(server_process, database_url, 10_000, capsys)


@contextmanager
def peak_memory(server: ServerProcess) -> Iterator[list[int]]:
    """The largest amount of memory that the server had in the block, once it has ended."""
    peak = [memory(server)]

    async def look() -> None:
        while True:
            peak[0] = max(peak[0], memory(server))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(look())
    try:
        yield peak
    finally:
        looking.cancel()


async def write(caller: Caller, session: str, events: int) -> None:
    """Write events of 4 KB and small ones by turns: the session is paused with a long reason, and resumed."""
    for _ in range(events // 2):
        pause = session_pb2.PauseSessionRequest(name=session, reason=LONG_REASON)
        await invoke(caller, "PauseSession", pause)
        await invoke(caller, "ResumeSession", session_pb2.ResumeSessionRequest(name=session))


async def stalled_reader(
    start: StartServer, database_url: str, events: int, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader that reads nothing for so long while so many events are written to its stream."""
    async with served(start, database_url) as (server, caller):
        await write(caller, await make_session(caller), 200)  # what writing alone costs
        session = await make_session(caller)
        stream: Any = caller.channel.unary_stream(WATCH)
        request = session_pb2.WatchSessionRequest(name=session).SerializeToString()
        call = stream(request, metadata=caller.metadata)
        first = session_pb2.WatchSessionResponse.FromString(await call.read())
        began, before = monotonic(), memory(server)
        with peak_memory(server) as peak:
            await write(caller, session, events)
            await asyncio.sleep(max(0.0, began + seconds - monotonic()))
        grown = (peak[0] - before) / MIB
        written = events // 2 * len(LONG_REASON.encode()) / MIB
        tell(capsys, f"{events} events, {written:.0f} MiB, past a reader that did not read: memory +{grown:.1f} MiB")
        sequences = [event.sequence for event in first.events]
        async with asyncio.timeout(60 + events / 1000):
            while sequences[-1] < events + 1:
                batch = session_pb2.WatchSessionResponse.FromString(await call.read())
                sequences += [event.sequence for event in batch.events]
        call.cancel()
        assert sequences == list(range(1, events + 2))
        assert grown < MOST_MIB_FOR_A_READER


async def test_a_reader_that_stops_reading_costs_no_memory_and_loses_nothing(
    server_process: StartServer, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await stalled_reader(server_process, database_url, 1_000, 3, capsys)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_reader_that_stops_reading_for_a_minute_costs_no_memory_and_loses_nothing(
    server_process: StartServer, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await stalled_reader(server_process, database_url, 100_000, 60, capsys)


@pytest.mark.parametrize("number", [1_000, pytest.param(8_000, marks=pytest.mark.long)])
async def test_a_burst_of_calls_is_answered_to_the_last(
    server_process: StartServer, database_url: str, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """Of authenticated calls that read the database; `tests/rpc/test_load.py` shows it of the transport alone."""
    async with served(server_process, database_url) as (_, caller):
        session = await make_session(caller)
        get = session_pb2.GetSessionRequest(name=session)
        began = monotonic()
        calls = [
            invoke(caller, "GetSession", get, timeout=300)
            if each % 2
            else invoke(caller, "WhoAmI", identity_pb2.WhoAmIRequest(), timeout=300)
            for each in range(number)
        ]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        tell(capsys, f"{number} calls at once: the last was answered after {monotonic() - began:.1f} s")
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
