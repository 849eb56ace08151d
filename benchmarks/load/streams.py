"""Many readers: of one busy stream, and idle ones."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import Sequence

import grpc
from stationmaster.v1 import session_pb2

from benchmarks.load.channel import Metadata, channel, pairs, stream_call
from benchmarks.load.conversation import expected
from benchmarks.load.ours import SERVICE, Ours


async def messages(*, target: str, watchers: int, size: int, count: int) -> dict[str, float]:
    """The floor: every event is a message of its own to each reader. Messages a second."""
    async with channel(target) as one:
        watch = stream_call(one, f"/echo.Stream/{size}-{count}")

        async def read() -> None:
            async for _ in watch(b""):
                pass

        began = time.perf_counter()
        await asyncio.gather(*(read() for _ in range(watchers)))
        return {"rate": watchers * count / (time.perf_counter() - began)}


async def watchers(*, target: str, watchers: int, words: int, metadata: Metadata) -> dict[str, float]:
    """Readers of one session while a reply is written: words delivered a second, to the very last one."""
    ours = Ours(target, metadata)
    session = await ours.create()
    request = session_pb2.WatchSessionRequest(name=session).SerializeToString()
    sent = pairs(metadata)
    last = f" word{words}".encode()
    async with channel(target) as one:
        watch = stream_call(one, f"{SERVICE}/WatchSession")
        ready = asyncio.Semaphore(0)

        async def read() -> list[bytes]:
            got: list[bytes] = []
            call = watch(request, metadata=sent)
            async for raw in call:
                if not got:
                    ready.release()
                got.append(raw)
                if last in raw:
                    break
            call.cancel()
            return got

        reading = [asyncio.create_task(read()) for _ in range(watchers)]
        for _ in range(watchers):
            await ready.acquire()
        began = time.perf_counter()
        sending = asyncio.create_task(ours.send(session, words))
        got = await asyncio.gather(*reading)
        seconds = time.perf_counter() - began
        await sending
    await ours.close()
    if any(_text(raws) != expected(words) for raws in got):
        raise RuntimeError("a reader was not given every word")
    return {"rate": watchers * words / seconds, "messages": sum(map(len, got)) / watchers}


def _text(raws: Sequence[bytes]) -> str:
    events = (event for raw in raws for event in session_pb2.WatchSessionResponse.FromString(raw).events)
    return "".join(event.text_delta.text for event in events)


class Idle:
    """Streams that stay open until `release`."""

    def __init__(self) -> None:
        self._channels: list[grpc.aio.Channel] = []
        self._reading: list[asyncio.Task[None]] = []

    async def hold(
        self, *, target: str, method: str, requests: Sequence[str], count: int, metadata: Metadata = ()
    ) -> dict[str, float]:
        """Open streams, 200 at a time, and keep them open; each has had its first message when this returns."""
        sent = pairs(metadata)
        bodies = [b64decode(request) for request in requests]
        self._channels = [channel(target) for _ in range(4)]
        calls = [stream_call(each, method) for each in self._channels]
        gate = asyncio.Semaphore(200)
        opened = asyncio.Semaphore(0)

        async def read(number: int) -> None:
            await gate.acquire()
            first = True
            async for _ in calls[number % len(calls)](bodies[number % len(bodies)], metadata=sent):
                if first:
                    first = False
                    gate.release()
                    opened.release()

        self._reading = [asyncio.create_task(read(number)) for number in range(count)]
        for _ in range(count):
            await opened.acquire()
            if broken := [task for task in self._reading[:10] if task.done()]:
                broken[0].result()
                raise RuntimeError("an idle stream ended")
        return {}

    async def release(self) -> dict[str, float]:
        """Close them all."""
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in self._channels))
        return {}
