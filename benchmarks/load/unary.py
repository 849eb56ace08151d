"""Unary calls by closed-loop callers, and bursts. Requests travel as ready-made bytes: the load costs little."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence

from stationmaster.v1 import session_pb2

from benchmarks.load.channel import DEADLINE, Metadata, channel, pairs, unary_call
from benchmarks.load.closed import closed_loop
from benchmarks.load.ours import SERVICE, create_request


async def unary(
    *,
    target: str,
    method: str,
    requests: Sequence[str],
    callers: int,
    seconds: float,
    metadata: Metadata = (),
    request_id_field: int = 0,
) -> dict[str, float]:
    """Calls a second. `requests` are base64, taken in turn; with a field number each gets a fresh UUID in it."""
    channels = [channel(target) for _ in range(min(callers, 4))]
    calls = [unary_call(each, method) for each in channels]
    send = _requests([b64decode(request) for request in requests], request_id_field)
    sent = pairs(metadata)

    async def call(caller: int) -> None:
        await calls[caller % len(calls)](send(), metadata=sent, timeout=DEADLINE)

    try:
        first = await calls[0](send(), metadata=sent, timeout=DEADLINE)
        return {**await closed_loop(call, callers=callers, seconds=seconds), "answer_bytes": len(first)}
    finally:
        await asyncio.gather(*(each.close() for each in channels))


def _requests(bodies: Sequence[bytes], request_id_field: int) -> Callable[[], bytes]:
    turn = itertools.cycle(bodies)
    if not request_id_field:
        return lambda: next(turn)
    # A field that is appended to a message's bytes is part of the message.
    head = bytes([request_id_field << 3 | 2, 36])
    return lambda: next(turn) + head + str(uuid.uuid4()).encode()


async def burst(*, target: str, method: str, request: str, count: int, metadata: Metadata = ()) -> dict[str, float]:
    """So many calls at once on one connection: how many were answered, and in how many seconds."""
    body = b64decode(request)
    sent = pairs(metadata)
    async with channel(target) as one:
        call = unary_call(one, method)
        began = time.perf_counter()
        answers = await asyncio.gather(
            *(call(body, metadata=sent, timeout=DEADLINE) for _ in range(count)), return_exceptions=True
        )
        seconds = time.perf_counter() - began
    lost = [answer for answer in answers if not isinstance(answer, bytes)]
    if lost:
        print(f"burst: the first of {len(lost)} lost: {lost[0]!r}"[:300], flush=True, file=sys.stderr)
    return {"answered": count - len(lost), "seconds": seconds}


async def make_sessions(*, target: str, count: int, metadata: Metadata = ()) -> dict[str, object]:
    """Make sessions; the requests that read them (base64), and the size of an answer."""
    sent = pairs(metadata)
    async with channel(target) as one:
        create = unary_call(one, f"{SERVICE}/CreateSession")
        gate = asyncio.Semaphore(16)

        async def make() -> bytes:
            async with gate:
                return await create(create_request(), metadata=sent, timeout=DEADLINE)

        answers = await asyncio.gather(*(make() for _ in range(count)))
    names = [session_pb2.Session.FromString(answer).name for answer in answers]
    requests = [session_pb2.GetSessionRequest(name=name).SerializeToString() for name in names]
    return {"requests": [b64encode(request).decode() for request in requests], "answer_bytes": len(answers[0])}
