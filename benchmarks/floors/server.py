"""How a floor serves: bare grpc.aio on uvloop, with the pending-call limits that keep bursts alive."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop

OPTIONS = [
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    ("grpc.max_concurrent_streams", 20_000),
    ("grpc.so_reuseport", 0),
]

Context = grpc.aio.ServicerContext[Any, Any]
Prepare = Callable[[grpc.aio.Server], Awaitable[None]]


def serve(port: int, prepare: Prepare) -> None:
    """Serve on a port until SIGTERM; says `ready` once it does."""
    uvloop.run(_serve(port, prepare))


async def _serve(port: int, prepare: Prepare) -> None:
    server = grpc.aio.server(options=OPTIONS)
    await prepare(server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    print("ready", flush=True)
    await stopped.wait()
    await server.stop(0)
