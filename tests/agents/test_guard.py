"""The circuit breaker around an attempt that yields."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

import pytest
from stationmaster_server.agents.runtimes.guard import Guarded
from stationmaster_server.errors import Unavailable
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker


class Clock:
    """Time, by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def breaker(clock: Clock) -> CircuitBreaker:
    pause = timedelta(seconds=10)
    return CircuitBreaker(
        "x", failures=2, pause=pause, counts=lambda error: not isinstance(error, KeyError), clock=clock
    )


def fail(guarded: CircuitBreaker, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, Guarded(guarded):
        raise error
    assert raised.value is error


def test_failures_open_it_and_a_trial_closes_it_again() -> None:
    clock = Clock()
    guarded = breaker(clock)
    fail(guarded, ValueError())
    fail(guarded, ValueError())
    with pytest.raises(Unavailable) as refused, Guarded(guarded):
        pytest.fail("was let through")
    assert refused.value.retry_after == timedelta(seconds=10)
    clock.now = 11
    with Guarded(guarded):
        assert str(guarded.state) == "half_open"
    assert str(guarded.state) == "closed"


def test_a_success_between_failures_keeps_it_closed() -> None:
    guarded = breaker(Clock())
    for error in (ValueError(), KeyError(), ValueError()):
        fail(guarded, error)
    assert str(guarded.state) == "closed"


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_a_cancelled_trial_counts_neither_way(error: type[BaseException]) -> None:
    clock = Clock()
    guarded = breaker(clock)
    fail(guarded, ValueError())
    fail(guarded, ValueError())
    clock.now = 11
    with pytest.raises(error), Guarded(guarded):
        raise error
    assert str(guarded.state) == "open"
    with Guarded(guarded):
        assert str(guarded.state) == "half_open"


async def test_an_iterator_that_is_closed_inside_leaves_it_as_it_was() -> None:
    guarded = breaker(Clock())
    fail(guarded, ValueError())

    async def numbers() -> AsyncGenerator[int, None]:
        with Guarded(guarded):
            yield 1

    async with aclosing(numbers()) as stream:
        assert await anext(stream) == 1
    fail(guarded, ValueError())
    assert str(guarded.state) == "open"
