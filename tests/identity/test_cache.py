"""The cache of what the database says."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from stationmaster_server.identity.cache import Cache


class Source:
    """What would be the database."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: str | None = "first"
        self.was_asked = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()

    async def find(self, key: str) -> str | None:
        """The answer that stood when the question came."""
        self.asked += 1
        self.was_asked.set()
        answer = self.answer
        await self.release.wait()
        return answer


async def test_many_who_ask_at_once_share_one_question() -> None:
    source, cache = Source(), Cache[str, str](timedelta(minutes=1))
    answers = await asyncio.gather(*(cache.get("key", source.find) for _ in range(100)))
    assert (set(answers), source.asked) == ({"first"}, 1)


async def test_that_there_is_nothing_is_kept_too() -> None:
    source, cache = Source(), Cache[str, str](timedelta(minutes=1))
    source.answer = None
    for _ in range(3):
        assert await cache.get("key", source.find) is None
    assert source.asked == 1


async def test_an_answer_is_believed_for_its_lifetime_only() -> None:
    source, cache = Source(), Cache[str, str](timedelta(0))
    await cache.get("key", source.find)
    source.answer = "second"
    assert await cache.get("key", source.find) == "second"


async def test_an_answer_that_was_under_way_when_all_was_forgotten_is_not_kept() -> None:
    source, cache = Source(), Cache[str, str](timedelta(minutes=1))
    source.release.clear()
    asking = asyncio.create_task(cache.get("key", source.find))
    await source.was_asked.wait()
    cache.forget()
    source.answer = "second"
    source.release.set()
    assert await asking == "first"
    assert await cache.get("key", source.find) == "second"


async def test_it_never_grows_past_its_bound() -> None:
    source, cache = Source(), Cache[str, str](timedelta(minutes=1), most=10)
    for number in range(100):
        await cache.get(str(number), source.find)
    assert len(cache) <= 10
