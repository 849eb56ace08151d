"""Random and boundary messages for every method: an answer each, never INTERNAL or UNKNOWN, never a hang."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import Any

import grpc
import pytest

from tests.contract import descriptors
from tests.contract.descriptors import Method
from tests.contract.samples import Fuzzer
from tests.contract.world import Caller, code_of, reason_of

FINE = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "RESOURCE_EXHAUSTED",
}
SEED = int(os.environ.get("FUZZ_SEED", "20261121"))


async def answer(caller: Caller, method: Method, request: bytes) -> tuple[str, str]:
    """Status and reason of a call with these bytes; a stream that is still open after a moment is fine."""
    kind: Any = caller.channel.unary_stream if method.streams else caller.channel.unary_unary
    started = kind(method.path)(request, metadata=caller.metadata, timeout=0.4 if method.streams else 20)
    try:
        if method.streams:
            async for _ in started:
                pass
        else:
            await started
    except grpc.aio.AioRpcError as error:
        if method.streams and code_of(error) == "DEADLINE_EXCEEDED":
            return "OK", ""
        return code_of(error), reason_of(error)
    finally:
        started.cancel()
    return "OK", ""


async def fuzz(caller: Caller, requests: list[tuple[Method, bytes]]) -> list[str]:
    """What went wrong."""
    wrong: list[str] = []
    seen: Counter[str] = Counter()
    gate = asyncio.Semaphore(24)

    async def one(method: Method, request: bytes) -> None:
        async with gate:
            code, reason = await answer(caller, method, request)
        seen[code] += 1
        away = (code, reason) == ("UNAVAILABLE", "MCP_SERVER_UNAVAILABLE")  # what a random URL leads to
        if (code not in FINE and not away) or (code != "OK" and not reason):
            wrong.append(f"{method.name}: {code} {reason} for {request[:300]!r}")

    async with asyncio.timeout(len(requests) / 20):
        await asyncio.gather(*(one(method, request) for method, request in requests))
    assert seen["OK"] > len(requests) / 40, f"too few of the messages got through validation: {seen}"
    return wrong


def names_of(caller: Caller) -> dict[str, list[str]]:
    return {kind: [name] for kind, name in caller.names.items() if kind != "stationmaster.dev/Organization"}


@pytest.mark.parametrize("messages_per_method", [20, pytest.param(150, marks=pytest.mark.long)])
async def test_no_message_makes_the_server_fail(mallory: Caller, victim: Caller, messages_per_method: int) -> None:
    names = names_of(mallory)
    for kind, others in names_of(victim).items():
        names[kind] += others
    fuzzer = Fuzzer(SEED, names)
    requests = [
        (method, fuzzer.message(method.request).SerializeToString())
        for method in descriptors.methods()
        for _ in range(messages_per_method)
    ]
    random.Random(SEED).shuffle(requests)
    wrong = await fuzz(mallory, requests)
    assert not wrong, f"seed {SEED}:\n" + "\n".join(wrong[:40])


async def test_bytes_that_are_no_message_are_refused(mallory: Caller) -> None:
    chance = random.Random(SEED)
    for method in descriptors.methods():
        for size in (1, 7, 100):
            code, _ = await answer(mallory, method, b"\xff" * size + chance.randbytes(size))
            assert code in FINE, f"{method.name}: {code}"
