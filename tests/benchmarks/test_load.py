"""The parts of the load that could make figures wrong."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import pytest

from benchmarks.floors.run import floor
from benchmarks.generator import LoadFailed, generator
from benchmarks.load.closed import closed_loop
from benchmarks.load.http import Http, HttpError
from benchmarks.processes import free_port
from benchmarks.proxy import proxy


async def test_a_closed_loop_counts_what_ended_in_time() -> None:
    async def work(caller: int) -> None:
        await asyncio.sleep(0.01)

    figures = await closed_loop(work, callers=4, seconds=0.5)
    assert 100 < figures["rate"] <= 400
    assert figures["p50"] >= 10


async def test_something_slower_than_the_run_still_has_a_rate() -> None:
    async def work(caller: int) -> None:
        await asyncio.sleep(0.2)

    assert 0 < (await closed_loop(work, callers=1, seconds=0.05))["rate"] <= 10


async def test_a_call_that_fails_fails_the_run() -> None:
    async def work(caller: int) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ExceptionGroup):
        await closed_loop(work, callers=2, seconds=0.1)


async def test_a_load_process_measures_the_echo_and_says_what_failed() -> None:
    async with floor("benchmarks.floors.echo") as echo, generator() as load:
        request = [b64encode(b"hello").decode()]
        call: dict[str, Any] = {"target": echo.target, "requests": request, "callers": 2, "seconds": 0.2}
        figures = await load.run("unary", method="/echo.Echo/123", **call)
        assert figures["answer_bytes"] == 123
        assert figures["rate"] > 0
        with pytest.raises(LoadFailed, match="unary"):
            await load.run("unary", method="/echo.Echo/not-a-size", **call)
        burst = await load.run("burst", target=echo.target, method="/echo.Echo/1", request=request[0], count=500)
        assert burst["answered"] == 500


async def test_the_http_client_reads_events_as_they_were_cut_and_refuses_errors() -> None:
    pieces = [b"6\r\ndata: \r\n", b'9\r\n{"a":1}\n\n\r\n', b"0\r\n\r\n"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"POST /bad" in head:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
        await writer.drain()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        http = Http("127.0.0.1", port)
        assert [event async for event in http.events("/", b"", "text/plain")] == [{"a": 1}]
        await http.close()
        with pytest.raises(HttpError, match="403"):
            await http.post("/bad", b"", "text/plain")
        await http.close()


async def test_the_relay_counts_both_directions() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(10)
        writer.write(b"x" * 90)
        await writer.drain()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server, proxy(f"127.0.0.1:{port}") as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(b"y" * 10)
        assert len(await reader.read(-1)) == 90
        writer.close()
    assert relay.counted == 100
