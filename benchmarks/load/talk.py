"""Loads made of conversations."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from benchmarks.load.adk import Adk
from benchmarks.load.agno import Agno
from benchmarks.load.channel import Metadata
from benchmarks.load.closed import closed_loop
from benchmarks.load.conversation import Conversation, Reply
from benchmarks.load.langgraph import LangGraph
from benchmarks.load.ours import Ours
from benchmarks.load.raw import Raw
from benchmarks.stats import percentile


async def _callers(stack: AsyncExitStack, kind: str, target: str, metadata: Metadata, count: int) -> list[Conversation]:
    made: list[Conversation] = []
    for _ in range(count):
        match kind:
            case "ours":
                made.append(Ours(target, metadata))
            case "raw":
                made.append(Raw(target))
            case "agno":
                made.append(Agno(target))
            case "adk":
                made.append(Adk(target))
            case "langgraph":
                made.append(LangGraph(target))
        stack.push_async_callback(made[-1].close)
    return made


async def creations(
    *, kind: str, target: str, callers: int, seconds: float, metadata: Metadata = ()
) -> dict[str, float]:
    """Sessions created a second."""
    async with AsyncExitStack() as stack:
        each = await _callers(stack, kind, target, metadata, callers)
        return await closed_loop(lambda caller: each[caller].create(), callers=callers, seconds=seconds)


async def cycles(
    *, kind: str, target: str, callers: int, seconds: float, words: int, metadata: Metadata = ()
) -> dict[str, float]:
    """Create, send, read to the end: cycles a second, the first word in ms, and the share of right answers."""
    replies: list[Reply] = []
    async with AsyncExitStack() as stack:
        each = await _callers(stack, kind, target, metadata, callers)

        async def cycle(caller: int) -> None:
            session = await each[caller].create()
            replies.append(await each[caller].send(session, words))

        figures = await closed_loop(cycle, callers=callers, seconds=seconds)
    first = [reply.first * 1000 for reply in replies[len(replies) // 6 :]]
    right = sum(reply.right for reply in replies) / len(replies)
    return {**figures, "first_p50": percentile(first, 0.5), "first_p99": percentile(first, 0.99), "right": right}


async def replies(
    *, kind: str, target: str, callers: int, repeats: int, words: int, metadata: Metadata = ()
) -> dict[str, float]:
    """Long replies, `callers` at once, each in a session of its own, `repeats` times: and the rate of words."""
    seconds: list[float] = []
    rates: list[float] = []
    async with AsyncExitStack() as stack:
        each = await _callers(stack, kind, target, metadata, callers)
        for _ in range(repeats):
            sessions = await asyncio.gather(*(one.create() for one in each))
            began = time.perf_counter()
            sends = (one.send(session, words) for one, session in zip(each, sessions, strict=True))
            answers = await asyncio.gather(*sends)
            rates.append(callers * words / (time.perf_counter() - began))
            seconds += [answer.seconds for answer in answers]
            if not all(answer.right for answer in answers):
                raise RuntimeError(f"{kind}: a reply of {words} words was not what was asked for")
    return {"seconds": statistics.median(seconds), "rate": statistics.median(rates)}


async def sessions(
    *, kind: str, target: str, callers: int, count: int, words: int, metadata: Metadata = ()
) -> dict[str, float]:
    """So many sessions with a turn each."""
    left = itertools.count(count, -1)
    wrong = 0
    async with AsyncExitStack() as stack:
        each = await _callers(stack, kind, target, metadata, callers)

        async def work(one: Conversation) -> None:
            nonlocal wrong
            while next(left) > 0:
                wrong += not (await one.send(await one.create(), words)).right

        await asyncio.gather(*map(work, each))
    return {"wrong": wrong}


async def grow(
    *, target: str, count: int, messages: int, words: int, metadata: Metadata = ()
) -> dict[str, Sequence[str]]:
    """`count` sessions of ours that have `messages` messages of the user each."""
    async with AsyncExitStack() as stack:
        each = await _callers(stack, "ours", target, metadata, count)

        async def work(one: Conversation) -> str:
            session = await one.create()
            for _ in range(messages):
                await one.send(session, words)
            return session

        return {"sessions": await asyncio.gather(*map(work, each))}


async def first_and_last(
    *, target: str, session: str, repeats: int, words: int, metadata: Metadata = ()
) -> dict[str, float]:
    """Milliseconds of a message to a long session, and of the first message to a new one, in turn."""
    new: list[float] = []
    old: list[float] = []
    async with AsyncExitStack() as stack:
        [one] = await _callers(stack, "ours", target, metadata, 1)
        for _ in range(repeats):
            fresh = await one.create()
            new.append((await one.send(fresh, words)).seconds * 1000)
            old.append((await one.send(session, words)).seconds * 1000)
    return {"first": statistics.median(new), "last": statistics.median(old)}
