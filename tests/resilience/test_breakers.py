"""Circuit breakers by key."""

from __future__ import annotations

import pytest
from stationmaster_server.errors import Unavailable
from stationmaster_server.resilience.breakers import Breakers
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker


async def _fails() -> None:
    raise OSError


async def _works() -> str:
    return "works"


async def test_one_that_fails_is_left_alone_and_others_are_not() -> None:
    breakers = Breakers(lambda: CircuitBreaker("it", failures=1))
    with pytest.raises(OSError):  # noqa: PT011 - raised above
        await breakers.of("one").call(_fails)
    with pytest.raises(Unavailable):
        await breakers.of("one").call(_works)
    assert await breakers.of("other").call(_works) == "works"


async def test_only_so_many_are_remembered_those_that_were_used_last() -> None:
    breakers = Breakers(lambda: CircuitBreaker("it"), most=2)
    one, two = breakers.of(1), breakers.of(2)
    assert breakers.of(1) is one
    breakers.of(3)
    assert breakers.of(1) is one
    assert breakers.of(2) is not two
