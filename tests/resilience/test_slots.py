"""Slots: none is lost, whatever comes together with whatever."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from stationmaster_server.errors import ResourceExhausted
from stationmaster_server.resilience.slots import Slots
from stationmaster_server.resilience.whose import WHOSE

from tests.waiting import until

LONG = timedelta(minutes=2)


async def waits(slots: Slots, count: int) -> None:
    """Until so many wait."""

    async def as_many() -> bool:
        return slots.waiting == count

    await until(as_many)


async def test_a_slot_that_comes_together_with_a_cancellation_is_not_lost() -> None:
    slots = Slots("a thing", 1, 10, LONG)
    await slots.take("first")
    second = asyncio.create_task(slots.take("second"))
    await waits(slots, 1)
    slots.give()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert second.cancelled()
    assert (slots.taken, slots.waiting) == (0, 0)


async def test_who_waits_longest_is_next() -> None:
    slots = Slots("a thing", 1, 10, LONG)
    await slots.take("first")
    order: list[int] = []

    async def take(number: int) -> None:
        await slots.take(str(number))
        order.append(number)
        slots.give()

    tasks = []
    for number in range(5):
        tasks.append(asyncio.create_task(take(number)))
        await waits(slots, number + 1)
    slots.give()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]


async def test_organizations_take_turns_and_none_fills_the_queue() -> None:
    slots = Slots("a thing", 1, 10, LONG)
    await slots.take("first")
    greedy, modest = uuid4(), uuid4()
    order: list[UUID] = []

    async def take(whose: UUID) -> None:
        WHOSE.set(whose)  # of this task alone
        await slots.take("a call")
        order.append(whose)
        slots.give()

    tasks = [asyncio.create_task(take(greedy)) for _ in range(5)]
    await waits(slots, 5)
    with pytest.raises(ResourceExhausted, match="5 calls of the organization wait for a thing already"):
        await asyncio.create_task(take(greedy))
    tasks += [asyncio.create_task(take(modest)) for _ in range(2)]
    await waits(slots, 7)
    slots.give()
    await asyncio.gather(*tasks)
    assert order == [greedy, modest, greedy, modest, greedy, greedy, greedy]
    assert (slots.taken, slots.waiting) == (0, 0)


async def test_who_waited_too_long_is_refused_and_is_not_in_the_way() -> None:
    slots = Slots("a thing", 1, 1, timedelta(milliseconds=20))
    await slots.take("first")
    for _ in range(3):
        with pytest.raises(ResourceExhausted, match=r"waited 0.02 s for a thing"):
            await slots.take("another")
    assert (slots.waiting, slots.refused) == (0, 3)
    slots.give()
    await slots.take("first again")


async def test_closing_waits_for_those_that_have_one() -> None:
    slots = Slots("a thing", 2, 10, LONG)
    await slots.take("first")
    slots.close()
    assert not await slots.until_free(timedelta(milliseconds=10))
    slots.give()
    assert await slots.until_free(LONG)
