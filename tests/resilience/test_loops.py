"""Background loops outlive every error of a round."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.resilience.loops import attempt, repeat


@pytest.mark.parametrize("error", [RuntimeError("a bug"), Unavailable(Reason.DATABASE_UNAVAILABLE, "away")])
async def test_a_loop_goes_on_after_an_error_that_nobody_foresaw(error: Exception) -> None:
    rounds = 0
    done = asyncio.Event()

    async def work() -> None:
        nonlocal rounds
        rounds += 1
        if rounds < 3:
            raise error
        done.set()

    loop = asyncio.create_task(repeat("test", timedelta(0), work))
    async with asyncio.timeout(10):
        await done.wait()
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


async def test_cancelling_a_round_ends_its_loop() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await attempt("test", work)
