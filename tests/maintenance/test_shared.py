"""What is costly to read is read once for all who look."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import maintenance_pb2 as pb
from stationmaster.v1.maintenance_pb2_grpc import MaintenanceServiceStub
from stationmaster_server.maintenance import status_store, store
from stationmaster_server.maintenance.shared import Shared

from tests.fixtures.server import RunningServer
from tests.maintenance.test_runner import counted_calls

WATCHERS = 10


async def test_ten_watchers_cost_what_one_does(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, views = (counted_calls(monkeypatch, *what) for what in ((status_store, "counts"), (store, "all_figures")))
    loop = asyncio.get_running_loop()
    async with server.channel() as channel, asyncio.timeout(60):
        maintenance: Any = MaintenanceServiceStub(channel)
        began = loop.time()
        request = pb.WatchSystemStatusRequest(interval=Duration(seconds=1))
        watches = [maintenance.WatchSystemStatus(request) for _ in range(WATCHERS)]
        watches += [maintenance.WatchBackgroundServices(pb.WatchBackgroundServicesRequest()) for _ in range(WATCHERS)]
        for _ in range(3):
            await asyncio.gather(*(watch.read() for watch in watches))
        took = loop.time() - began
        for watch in watches:
            watch.cancel()
    # One a second, and one more of each that was under way at either end.
    assert 1 <= counts[0] <= took + 2
    assert 1 <= views[0] <= took + 2


async def test_what_takes_long_to_read_is_kept_for_longer() -> None:
    reads = [0]

    async def read() -> int:
        reads[0] += 1
        await asyncio.sleep(0.05)
        return reads[0]

    shared = Shared(read, timedelta(milliseconds=1))
    assert await asyncio.gather(*(shared.get() for _ in range(5))) == [1] * 5
    await asyncio.sleep(0.1)
    assert await shared.get() == 1  # reading takes a twentieth of the time at most


async def test_what_could_not_be_read_is_read_again() -> None:
    left = [1]

    async def read() -> str:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("not now")
        return "read"

    shared = Shared(read, timedelta(hours=1))
    with pytest.raises(RuntimeError, match="not now"):
        await shared.get()
    assert await shared.get() == "read"


async def test_who_gives_up_ends_no_reading_of_others() -> None:
    go_on = asyncio.Event()

    async def read() -> str:
        await go_on.wait()
        return "read"

    shared = Shared(read, timedelta(hours=1))
    first, second = (asyncio.create_task(shared.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    assert await second == "read"
