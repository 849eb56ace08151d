"""A service of a whole server that keeps failing: its operators are told, and nothing else notices."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest_asyncio
from stationmaster.v1 import maintenance_pb2 as pb
from stationmaster_client import Client
from stationmaster_server.resilience.webhooks import signed

from tests.fixtures.server import RunningServer, running, server_settings
from tests.resilience.site import Site, answer, serve
from tests.waiting import until

SECRET = bytes(range(32))
NAME = "backgroundServices/crawl-cleanup"
HOOK = "/hook?token=abc"


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Site]:
    """Where alerts go."""
    async with serve() as site:
        yield site


@pytest_asyncio.fixture
async def told(database_url: str, tmp_path: Path, receiver: Site) -> AsyncIterator[RunningServer]:
    """A server that tells the receiver; no address is allowed for what users name."""
    alerts = {
        "alert_webhook": f"http://127.0.0.1:{receiver.port}{HOOK}",
        "alert_secret": f"whsec_{base64.b64encode(SECRET).decode()}",
    }
    async with running(server_settings(tmp_path / "data", database_url, maintenance=alerts)) as server:
        yield server


async def impatient(client: Client) -> None:
    """Have the service run often, and be unhealthy after its second failure."""
    service = pb.BackgroundService(name=NAME, max_failures=1)
    service.interval.FromMilliseconds(200)
    service.retry_delay.FromMilliseconds(10)
    await client.maintenance.update(service, ["interval", "retry_delay", "max_failures"])
    await client.maintenance.resume(NAME)


async def messages(site: Site, kind: str, count: int = 1) -> list[dict[str, Any]]:
    """The messages of a kind that came, when so many have."""

    async def came() -> bool:
        return len([body for _, _, body in site.requests if json.loads(body)["type"] == kind]) >= count

    await until(came, seconds=30)
    for path, headers, body in site.requests:
        assert path == HOOK
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert headers["webhook-signature"] == signed(SECRET, headers["webhook-id"], at, body)["webhook-signature"]
    return [message for _, _, body in site.requests if (message := json.loads(body))["type"] == kind]


async def test_a_service_that_breaks_is_told_of_and_others_go_on_and_it_recovers(
    told: RunningServer, receiver: Site, administrator_url: str
) -> None:
    receiver.answers = {HOOK: answer(b"not now", status=503)}
    broken = await asyncpg.connect(administrator_url)
    async with Client.connect(told.target, told.admin_key) as client:
        await broken.execute("ALTER TABLE crawl_runs RENAME TO runs_gone")
        before = (await client.maintenance.service("permission-expiry")).metrics
        await impatient(client)
        refused = await messages(receiver, "background_service.unhealthy")
        receiver.answers = {}
        first, *more = await messages(receiver, "background_service.unhealthy", len(refused) + 1)
        assert all(message == first for message in more)  # the same one, until it is taken
        assert first["data"]["service"] == NAME
        assert first["data"]["fault"] == "failing"
        assert "crawl_runs" in first["data"]["text"]

        async def seen() -> bool:
            return any("keeps failing" in alert.text for alert in (await client.maintenance.status()).alerts)

        assert await until(seen)
        assert (await client.maintenance.service(NAME)).state == pb.BACKGROUND_SERVICE_STATE_UNHEALTHY

        async def restarted() -> bool:
            return (await client.maintenance.service(NAME)).metrics.restarted >= 1

        assert await until(restarted)

        async def others_went_on() -> bool:
            now = (await client.maintenance.service("permission-expiry")).metrics
            return now.completed > before.completed + 1 and now.failed == 0

        assert await until(others_went_on)
        await broken.execute("ALTER TABLE runs_gone RENAME TO crawl_runs")
        await client.maintenance.resume(NAME)
        (last,) = await messages(receiver, "background_service.recovered")
        assert last["data"]["service"] == NAME

        async def well() -> pb.BackgroundService | None:
            found = await client.maintenance.service(NAME)
            return found if found.metrics.completed and not found.servers[0].failures_in_a_row else None

        found = await until(well)
        assert found is not None
        metrics = found.metrics
        assert metrics.failed == metrics.errors_last_hour >= 2
        assert metrics.retried >= metrics.failed - 1
        events = [event async for event in client.audit.list(filter=f'resource = "{NAME}"')]
    await broken.close()
    told_of = [event.action for event in reversed(events) if event.action != "background_service.update"]
    assert [action for action in told_of if "resume" not in action] == [
        "background_service.unhealthy",
        "background_service.recovered",
    ]
