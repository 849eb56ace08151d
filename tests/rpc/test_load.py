"""Bursts, bounds and rates."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from stationmaster_server.config import ServerSettings
from stationmaster_server.resilience.rate_limit import TokenBucket, TokenBuckets

from tests.rpc.echo import messages
from tests.rpc.served import ALL, Served, details_of, reason_of, serving, with_key

BURST = 8000


def request() -> Any:
    """Any request."""
    return messages()[0](text="x")


async def test_a_burst_of_8000_calls_is_answered_to_the_last(served: Served) -> None:
    async with served.stub() as stub:
        calls = [stub.echo(request(), metadata=with_key(ALL), timeout=90) for _ in range(BURST)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    lost = [answer for answer in answers if isinstance(answer, BaseException)]
    assert lost == []


async def test_what_a_call_costs_does_not_grow_with_the_number_of_methods(served: Served) -> None:
    """grpc looks at each call it waits for whenever one comes: it must wait for one, not for one of each method."""
    async with served.stub() as stub:
        await stub.echo(request(), metadata=with_key(ALL))
        names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    assert [name for name in names if "_request_" in name] == ["AioServer._request_call"]


@pytest.mark.long
async def test_calls_that_a_busy_server_takes_up_after_more_than_half_a_minute_are_answered(served: Served) -> None:
    async with served.stub() as stub:
        calls = [asyncio.ensure_future(stub.echo(request(), metadata=with_key(ALL), timeout=90)) for _ in range(2000)]
        await calls[0]
        time.sleep(32)  # noqa: ASYNC251 - the loop is held up, as by a machine that is too small
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []


async def test_calls_beyond_the_bound_are_refused_at_once_and_told_when_to_come_again() -> None:
    gate = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        await gate.wait()

    async with serving(ServerSettings(port=0, max_calls=2)) as served, served.stub() as stub:
        served.echo.behave = wait
        calls = [asyncio.ensure_future(stub.echo(request(), metadata=with_key(ALL))) for _ in range(3)]
        done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        (refused,) = done
        error = refused.exception()
        assert isinstance(error, grpc.aio.AioRpcError)
        assert reason_of(error) == "SERVER_OVERLOADED"
        retry: Any = details_of(error)["RetryInfo"]
        assert retry.retry_delay.ToTimedelta().total_seconds() > 0
        gate.set()
        assert len(await asyncio.gather(*pending)) == 2
        assert (await stub.echo(request(), metadata=with_key(ALL))).text == "x"


async def test_a_caller_that_is_too_fast_is_refused_and_audited_once() -> None:
    async with serving(caller_rate=TokenBuckets(0.001, 2)) as served, served.stub() as stub:
        errors = []
        for _ in range(5):
            try:
                await stub.echo(request(), metadata=with_key(ALL))
            except grpc.aio.AioRpcError as error:
                errors.append(error)
        assert [reason_of(error) for error in errors] == ["RATE_LIMITED"] * 3
        assert {"QuotaFailure", "RetryInfo"} <= details_of(errors[0]).keys()
        assert [entry.reason for _, entry in served.trail.entries] == ["RATE_LIMITED"]


async def test_the_rate_of_all_callers_is_bounded_too() -> None:
    async with serving(server_rate=TokenBucket(0.001, 1)) as served, served.stub() as stub:
        await stub.echo(request(), metadata=with_key(ALL))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.echo(request(), metadata=with_key(ALL))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
