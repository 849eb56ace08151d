"""`client.maintenance` against the real server."""

from __future__ import annotations

from uuid import uuid4

import pytest
from stationmaster_client import Client

from tests.fixtures.server import RunningServer

SERVICE = "task-embedding"


async def test_fields_and_own_settings_are_put_back_to_their_defaults(server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        before = await client.maintenance.service(SERVICE)
        service = await client.maintenance.service(SERVICE)
        service.max_failures = 9
        service.interval.FromSeconds(7)
        service.settings.update({"batch_size": 7})
        changed = await client.maintenance.update(service, ["max_failures", "interval", "settings"])
        assert (changed.max_failures, changed.settings["batch_size"]) == (9, 7)
        back = await client.maintenance.reset(SERVICE, ["max_failures", "batch_size"])
        assert (back.max_failures, back.settings) == (before.max_failures, before.settings)
        assert back.interval.seconds == 7
        with pytest.raises(ValueError, match="name what"):
            await client.maintenance.reset(SERVICE, [])
        names, request_id = ["interval", "batch_size"], str(uuid4())
        first = await client.maintenance.reset(SERVICE, names, request_id=request_id)
        again = await client.maintenance.reset(SERVICE, names, request_id=request_id)
        assert (
            (again.interval, again.settings) == (first.interval, first.settings) == (before.interval, before.settings)
        )
        with pytest.raises(ValueError, match=r"'colour' has no default .*; there are interval, .*batch_size"):
            await client.maintenance.reset(SERVICE, ["colour"])
