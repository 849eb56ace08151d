"""Restores of one organization do not hold up those of others: who reads an archive first, and who is refused."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from stationmaster_server.errors import ResourceExhausted
from stationmaster_server.storage.archives.turns import Turns

ONE, OTHER = uuid4(), uuid4()


class Readers:
    """Those who want a turn, each holding it until it is told to end."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.reading: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, organization_id: UUID) -> None:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._read(name, organization_id))
        await self.settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def _read(self, name: str, organization_id: UUID) -> None:
        async with self.turns.one(organization_id):
            self.reading.append(name)
            try:
                await self.ends[name].wait()
            finally:
                self.reading.remove(name)


async def test_one_organization_never_has_all_turns() -> None:
    readers = Readers(Turns(4, each=2, waiting=16))
    for number in range(6):
        await readers.come(f"a{number}", ONE)
    assert readers.reading == ["a0", "a1"]
    await readers.come("b", OTHER)
    assert readers.reading == ["a0", "a1", "b"]
    await readers.end("a0")
    assert readers.reading == ["a1", "b", "a2"]


async def test_a_free_turn_goes_to_who_has_the_fewest() -> None:
    readers = Readers(Turns(2, each=2, waiting=16))
    for number in range(4):
        await readers.come(f"a{number}", ONE)
    await readers.come("b", OTHER)
    await readers.end("a0")
    assert readers.reading == ["a1", "b"]
    await readers.end("b")
    assert readers.reading == ["a1", "a2"]


async def test_those_who_are_too_many_are_refused_and_others_are_not() -> None:
    readers = Readers(Turns(4, each=2, waiting=3))
    for number in range(5):
        await readers.come(f"a{number}", ONE)
    with pytest.raises(ResourceExhausted, match="3 restores"):
        async with readers.turns.one(ONE):
            pass
    await readers.come("b", OTHER)
    assert readers.reading == ["a0", "a1", "b"]


async def test_those_who_go_away_hold_no_turn() -> None:
    readers = Readers(Turns(1, each=1, waiting=3))
    for name in ("a", "waiting", "next"):
        await readers.come(name, ONE)
    readers.tasks["waiting"].cancel()
    readers.tasks["a"].cancel()
    await readers.settle()
    assert readers.reading == ["next"]
    await readers.end("next")
    await readers.come("last", OTHER)
    assert readers.reading == ["last"]
