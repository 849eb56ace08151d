"""The cache of model clients."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from stationmaster_server.agents.executors import Executors


class Clients:
    """Makes and closes clients, which are numbers, and counts."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.closed: list[str] = []
        self.now = 0.0
        self.cache: Executors[str, str] = Executors(
            self.make, self.close, most=2, idle=timedelta(seconds=10), clock=lambda: self.now
        )

    def make(self, key: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        if key == "broken":
            raise ValueError(key)
        self.made.append(key)
        return f"client of {key}"

    async def close(self, client: str) -> None:
        self.closed.append(client)

    async def use(self, *keys: str) -> None:
        for key in keys:
            await self.cache.release(key, await self.cache.acquire(key))


async def test_a_client_is_made_once_and_used_again() -> None:
    clients = Clients()
    await clients.use("a", "a", "a")
    assert clients.made == ["a"]
    assert (clients.cache.counters.hits, clients.cache.counters.misses) == (2, 1)


async def test_many_who_want_the_same_at_once_get_one() -> None:
    clients = Clients()
    got = await asyncio.gather(*(clients.cache.acquire("a") for _ in range(20)))
    assert set(got) == {"client of a"}
    assert clients.made == ["a"]


async def test_past_the_bound_the_least_recently_used_goes() -> None:
    clients = Clients()
    await clients.use("a", "b", "a", "c")
    assert clients.closed == ["client of b"]
    assert (len(clients.cache), clients.cache.counters.evictions) == (2, 1)


async def test_what_is_in_use_is_not_closed() -> None:
    clients = Clients()
    held = [(key, await clients.cache.acquire(key)) for key in "abcd"]
    assert clients.closed == []
    clients.now = 100
    assert await clients.cache.evict_idle() == 0
    for key, client in held:
        await clients.cache.release(key, client)
    assert len(clients.cache) == 2


async def test_what_nobody_used_for_a_while_goes() -> None:
    clients = Clients()
    await clients.use("a")
    clients.now = 5
    await clients.use("b")
    clients.now = 10
    assert await clients.cache.evict_idle() == 1
    assert clients.closed == ["client of a"]


async def test_closing_closes_everything() -> None:
    clients = Clients()
    client = await clients.cache.acquire("a")
    await clients.cache.close()
    await clients.cache.release("a", client)
    assert clients.closed == ["client of a"]
    assert len(clients.cache) == 0


async def test_a_client_that_cannot_be_made_is_tried_anew() -> None:
    clients = Clients()
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await clients.cache.acquire("broken")
    assert clients.cache.counters.misses == 2
