"""What comes back from outside is bounded: in size, as sent and decoded, and in silence."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import httpx2
import pytest
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.outbound_client import ResponseTooLarge

from tests.resilience.site import SILENCE, answer, serve

LIMIT = 100_000
BOMB = gzip.compress(bytes(200_000_000), compresslevel=9)


def _client(limit: int | None = LIMIT) -> httpx2.AsyncClient:
    return Outbound(["127.0.0.1"]).client(max_response_bytes=limit, timeout=httpx2.Timeout(10.0))


@pytest.mark.parametrize("size", [0, 1, LIMIT])
async def test_body_up_to_the_limit_is_read(size: int) -> None:
    async with serve({"/": answer(b"x" * size)}) as site, _client() as client:
        assert len((await client.get(f"http://127.0.0.1:{site.port}/")).content) == size


async def test_body_over_the_limit_is_not_read() -> None:
    async with serve({"/": answer(b"x" * (LIMIT + 1))}) as site, _client() as client:
        with pytest.raises(ResponseTooLarge, match="larger than 100000 bytes"):
            await client.get(f"http://127.0.0.1:{site.port}/")


async def test_limit_is_for_each_response_alone() -> None:
    async with serve({"/": answer(b"x" * LIMIT)}) as site, _client() as client:
        for _ in range(3):
            await client.get(f"http://127.0.0.1:{site.port}/")


async def test_without_a_limit_all_is_read() -> None:
    async with serve({"/": answer(b"x" * 3_000_000)}) as site, _client(None) as client:
        assert len((await client.get(f"http://127.0.0.1:{site.port}/")).content) == 3_000_000


async def test_bomb_goes_off_nowhere() -> None:
    async with serve({"/": answer(BOMB[:90_000], "Content-Encoding: gzip")}) as site, _client() as client:
        tracemalloc.start()
        try:
            with pytest.raises(ResponseTooLarge):
                await client.get(f"http://127.0.0.1:{site.port}/")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("way", ["aread", "aiter_bytes", "aiter_text", "aiter_lines", "aiter_raw"])
async def test_stream_is_bounded_however_it_is_read(way: str) -> None:
    answers = {"/": answer(b"line\n" * LIMIT), "/bomb": answer(BOMB[:90_000], "Content-Encoding: gzip")}
    async with serve(answers) as site, _client() as client:
        for path in ["/"] if way == "aiter_raw" else ["/", "/bomb"]:
            async with client.stream("GET", f"http://127.0.0.1:{site.port}{path}") as response:
                with pytest.raises(ResponseTooLarge):
                    await _read(response, way)


async def _read(response: httpx2.Response, way: str) -> None:
    if way == "aread":
        await response.aread()
        return
    async for _ in getattr(response, way)():
        pass


async def test_stream_comes_in_pieces_of_the_size_that_was_asked_for() -> None:
    async with serve({"/": answer(b"0123456789" * 10)}) as site, _client() as client:
        for way in ("aiter_bytes", "aiter_raw"):
            async with client.stream("GET", f"http://127.0.0.1:{site.port}/") as response:
                pieces = [piece async for piece in getattr(response, way)(30)]
            assert [len(piece) for piece in pieces] == [30, 30, 30, 10]
            assert b"".join(pieces) == b"0123456789" * 10


@pytest.mark.parametrize(("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_compressed_body_is_decoded(encoding: str, encode: object) -> None:
    assert callable(encode)
    body = encode(b"hello" * 9_000)
    async with serve({"/": answer(body, f"Content-Encoding: {encoding}")}) as site, _client() as client:
        assert (await client.get(f"http://127.0.0.1:{site.port}/")).content == b"hello" * 9_000


async def test_body_that_is_encoded_twice_is_refused() -> None:
    twice = answer(gzip.compress(gzip.compress(b"x")), "Content-Encoding: gzip, gzip")
    async with serve({"/": twice}) as site, _client() as client:
        with pytest.raises(httpx2.DecodingError, match="more than once"):
            await client.get(f"http://127.0.0.1:{site.port}/")


async def test_body_that_falls_silent_is_given_up() -> None:
    async with serve({"/": SILENCE}) as site, Outbound(["127.0.0.1"]).client(timeout=httpx2.Timeout(0.1)) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(f"http://127.0.0.1:{site.port}/")


async def test_body_that_breaks_off_is_an_error() -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhell"
    async with serve({"/": cut}) as site, _client() as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(f"http://127.0.0.1:{site.port}/")
