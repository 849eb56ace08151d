"""A bucket that is away is seen in the status for as long as it is, and StorageService alone is not well."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest
from stationmaster.v1 import maintenance_pb2 as pb
from stationmaster_client import Client
from stationmaster_server.app.storage_watch import STORAGE as STORAGE_NEED
from stationmaster_server.app.storage_watch import StorageWatch
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.rpc.health import HealthBoard

from tests.fixtures.server import running, server_settings
from tests.storage.places import S3Site
from tests.waiting import until

CHECK = "backgroundServices/storage-check"
STORAGE = "stationmaster.v1.StorageService"


async def test_a_bucket_that_is_away_is_in_the_status_until_it_is_back(
    database_url: str, tmp_path: Path, bucket: S3Site
) -> None:
    settings = server_settings(tmp_path / "data", database_url, storage=bucket.settings())
    async with (
        running(settings) as server,
        Client.connect(server.target, server.admin_key) as client,
        httpx2.AsyncClient(trust_env=False, base_url=bucket.endpoint) as site,
    ):
        service = pb.BackgroundService(name=CHECK)
        service.interval.FromMilliseconds(200)
        await client.maintenance.update(service, ["interval"])

        async def well() -> bool:
            found = await client.maintenance.service(CHECK)
            return bool(found.metrics.completed) and dict(await client.health.services())[STORAGE] == "SERVING"

        await until(well)
        assert list((await client.maintenance.status()).alerts) == []
        (await site.delete(f"/{bucket.bucket}")).raise_for_status()

        async def told() -> list[str]:
            status, services = await asyncio.gather(client.maintenance.status(), client.health.services())
            assert dict(services)[""] == "SERVING"
            away = dict(services)[STORAGE] == "NOT_SERVING"
            return [alert.text for alert in status.alerts if alert.subject == "object storage" and away]

        (text,) = await until(told)
        assert bucket.bucket in text
        assert "make it, or correct storage.s3.bucket" in text
        (await site.put(f"/{bucket.bucket}")).raise_for_status()
        await until(well)

        async def over() -> bool:
            return not (await client.maintenance.status()).alerts

        await until(over)


@pytest.mark.parametrize("switched_off", [False, True], ids=["paused", "disabled"])
async def test_a_check_that_is_held_keeps_no_service_down(
    database_url: str, tmp_path: Path, bucket: S3Site, switched_off: bool
) -> None:
    settings = server_settings(tmp_path / "data", database_url, storage=bucket.settings())
    async with (
        running(settings) as server,
        Client.connect(server.target, server.admin_key) as client,
        httpx2.AsyncClient(trust_env=False, base_url=bucket.endpoint) as site,
    ):
        service = pb.BackgroundService(name=CHECK, enabled=not switched_off)
        service.interval.FromMilliseconds(200)
        await client.maintenance.update(service, ["interval"])
        (await site.delete(f"/{bucket.bucket}")).raise_for_status()

        async def down() -> bool:
            return dict(await client.health.services())[STORAGE] == "NOT_SERVING"

        await until(down)
        await (client.maintenance.update(service, ["enabled"]) if switched_off else client.maintenance.pause(CHECK))

        async def up() -> bool:
            return not await down()

        await until(up)
        assert "object storage" not in {alert.subject for alert in (await client.maintenance.status()).alerts}
        service.enabled = True
        await (client.maintenance.update(service, ["enabled"]) if switched_off else client.maintenance.resume(CHECK))
        await until(down)


async def test_one_lost_request_does_not_make_the_bucket_away() -> None:
    lost = Unavailable(Reason.STORAGE_UNAVAILABLE, "lost on the way")
    answers: list[Exception | None] = [lost, None, lost, lost, None]

    async def ask() -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    board = HealthBoard()
    watch, seen = StorageWatch(ask, board), []
    while answers:
        await watch.look()
        seen.append(STORAGE_NEED in board.missing)
    assert seen == [False, False, False, True, False]
