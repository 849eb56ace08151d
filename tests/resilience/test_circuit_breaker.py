"""The circuit breaker: when it opens, what it lets through, how it closes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker, State


class Clock:
    """Time that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def fail() -> None:
    """What is broken."""
    raise OSError("broken")


async def work() -> str:
    """What works."""
    return "done"


async def broken(breaker: CircuitBreaker, times: int) -> None:
    """Fail so often."""
    for _ in range(times):
        with pytest.raises(OSError, match="broken"):
            await breaker.call(fail)


def state_of(breaker: CircuitBreaker) -> State:
    """Where it stands now."""
    return breaker.state


def breaker_of(clock: Clock, **options: object) -> CircuitBreaker:
    """A breaker that opens after three faults for ten seconds."""
    return CircuitBreaker("thing", failures=3, pause=timedelta(seconds=10), clock=clock, **options)  # type: ignore[arg-type]


async def test_it_opens_after_so_many_faults_in_a_row() -> None:
    breaker = breaker_of(Clock())
    await broken(breaker, 2)
    assert await breaker.call(work) == "done"  # a success begins the count anew
    await broken(breaker, 2)
    assert state_of(breaker) is State.CLOSED
    await broken(breaker, 1)
    assert state_of(breaker) is State.OPEN


async def test_while_open_it_refuses_without_calling_and_says_when_to_come_again() -> None:
    clock = Clock()
    breaker = breaker_of(clock)
    await broken(breaker, 3)
    clock.now = 4
    with pytest.raises(Unavailable) as raised:
        await breaker.call(work)
    assert raised.value.retry_after == timedelta(seconds=6)


async def test_after_the_pause_one_trial_decides() -> None:
    clock = Clock()
    breaker = breaker_of(clock)
    await broken(breaker, 3)
    clock.now = 10
    await broken(breaker, 1)
    assert state_of(breaker) is State.OPEN
    clock.now = 20
    assert await breaker.call(work) == "done"
    assert state_of(breaker) is State.CLOSED


async def test_only_one_trial_is_let_through_at_a_time() -> None:
    clock = Clock()
    breaker = breaker_of(clock)
    await broken(breaker, 3)
    clock.now = 10
    gate = asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "done"

    trial = asyncio.create_task(breaker.call(slow))
    await asyncio.sleep(0)
    assert breaker.state is State.HALF_OPEN
    with pytest.raises(Unavailable):
        await breaker.call(work)
    gate.set()
    assert await trial == "done"


async def test_a_cancelled_trial_leaves_the_next_call_to_try() -> None:
    clock = Clock()
    breaker = breaker_of(clock)
    await broken(breaker, 3)
    clock.now = 10
    trial = asyncio.create_task(breaker.call(asyncio.Event().wait))
    await asyncio.sleep(0)
    trial.cancel()
    await asyncio.gather(trial, return_exceptions=True)
    assert await breaker.call(work) == "done"


async def test_an_error_that_is_not_the_other_sides_fault_does_not_count() -> None:
    breaker = breaker_of(Clock(), counts=lambda error: not isinstance(error, OSError))
    await broken(breaker, 10)
    assert breaker.state is State.CLOSED


async def test_each_failed_trial_doubles_the_pause_up_to_a_limit_and_a_success_makes_it_short_again() -> None:
    clock = Clock()
    breaker = breaker_of(clock, longest_pause=timedelta(seconds=30))
    await broken(breaker, 3)
    pauses = []
    for _ in range(4):
        with pytest.raises(Unavailable) as refused:
            await breaker.call(work)
        pauses.append(refused.value.retry_after.total_seconds())
        clock.now += pauses[-1] + 0.001
        await broken(breaker, 1)
    assert pauses[0] == pytest.approx(10)
    assert 16 <= pauses[1] <= 24
    assert all(24 <= pause <= 36 for pause in pauses[2:])
    clock.now += 37
    assert await breaker.call(work) == "done"
    await broken(breaker, 3)
    with pytest.raises(Unavailable) as refused:
        await breaker.call(work)
    assert refused.value.retry_after == timedelta(seconds=10)


async def test_a_forced_call_is_made_while_open_and_its_success_closes() -> None:
    breaker = breaker_of(Clock())
    await broken(breaker, 3)
    assert await breaker.call(work, force=True) == "done"
    assert state_of(breaker) is State.CLOSED


async def test_who_is_refused_is_told_the_reason_of_the_breaker() -> None:
    breaker = breaker_of(Clock(), reason=Reason.MCP_SERVER_UNAVAILABLE)
    await broken(breaker, 3)
    with pytest.raises(Unavailable) as refused:
        await breaker.call(work)
    assert refused.value.reason is Reason.MCP_SERVER_UNAVAILABLE


async def test_a_refused_call_is_told_what_was_seen_last() -> None:
    breaker = breaker_of(Clock(), told=lambda error: f"it was {error}")
    await broken(breaker, 3)
    with pytest.raises(Unavailable, match=r"left alone for a while\. The last time: it was broken"):
        await breaker.call(work)
