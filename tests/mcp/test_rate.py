"""How fast a server may send: a flood is one however it is packed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx2
import pytest
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Ended, Fate
from stationmaster_server.mcp.rate import Rate
from stationmaster_server.mcp.transport_http import Body

BOUNDS = Bounds(flood_patience=timedelta(milliseconds=300))


async def packed(events: bytes, times: int, pause_seconds: float) -> AsyncIterator[bytes]:
    """The same bytes again and again, as a busy server's arrive."""
    for _ in range(times):
        yield events
        await asyncio.sleep(pause_seconds)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r"])
async def test_hundreds_of_events_in_one_chunk_are_a_flood(end: bytes) -> None:
    chunk = (b"data: {}" + end) * 1000
    fate = Fate()
    response = httpx2.Response(200, content=packed(chunk, 1000, 0.01))
    with pytest.raises(Ended, match="it floods"):
        async for _ in Body(response, Rate(BOUNDS), fate):
            pass
    assert fate.cause is not None
    assert fate.cause.is_fault


async def test_as_many_bytes_that_are_no_events_are_none() -> None:
    chunk = b"x" * 10_000
    response = httpx2.Response(200, content=packed(chunk, 100, 0.01))
    assert [len(each) async for each in Body(response, Rate(BOUNDS), Fate())] == [10_000] * 100
