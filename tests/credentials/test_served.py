"""A server and its key: what the board says, what callers hear, and how it comes back."""

from __future__ import annotations

import shutil
import stat
from base64 import b64encode
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from stationmaster.v1 import agent_pb2, credential_pb2
from stationmaster_client import Client
from stationmaster_client.errors import FailedPrecondition, Unavailable

from tests.fixtures.server import HealthStub, RunningServer, running, server_settings
from tests.waiting import until

SERVICE = "stationmaster.v1.CredentialService"
RIGHT, WRONG = (f"k1:{b64encode(bytes([byte]) * 32).decode()}" for byte in (1, 2))
_Status = health_pb2.HealthCheckResponse


def client_of(server: RunningServer, key: str = "") -> Client:
    return Client.connect(server.target, key or server.admin_key, insecure=True, attempts=1)


async def statuses(server: RunningServer) -> dict[str, Any]:
    """What the board says of each service."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub: Any = HealthStub(channel)
        listed = await stub.List(health_pb2.HealthListRequest())
    return {service: one.status for service, one in listed.statuses.items()}


async def test_a_wrong_key_stops_this_service_alone_and_the_right_one_brings_it_back(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data"

    def settings(keys: str) -> Any:
        return server_settings(folder, database_url, credentials={"keys": keys})

    async with running(settings(RIGHT)) as server, client_of(server) as client:
        await client.credentials.create("db", "the secret")
    async with running(settings(WRONG)) as server, client_of(server) as client:
        board = await statuses(server)
        assert board.pop(SERVICE) == _Status.NOT_SERVING
        assert set(board.values()) == {_Status.SERVING}
        status = await client.credentials.key_status()
        assert "'k1'" in status.problem
        assert "not the one" in status.problem
        assert not status.keys[0].present
        with pytest.raises(Unavailable) as refused:
            await client.credentials.value("db")
        assert refused.value.reason == "ENCRYPTION_KEY_UNAVAILABLE"
        with pytest.raises(Unavailable):
            await client.credentials.create("other", "x")
        assert (await client.credentials.get("db")).name == "credentials/db"
        assert (await client.agents.create("a", agent_pb2.AgentSpec(model="demo"))).name == "agents/a"
    async with running(settings(RIGHT)) as server, client_of(server) as client:
        assert (await statuses(server))[SERVICE] == _Status.SERVING
        assert await client.credentials.value("db") == "the secret"
        assert [one.name async for one in client.credentials.list()] == ["credentials/db"]


async def test_a_key_file_that_is_lost_is_missed_and_found_again(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "data" / "credentials.keys"
    async with running(server_settings(tmp_path / "data", database_url)) as server, client_of(server) as client:
        await client.credentials.create("db", "the secret")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.rename(tmp_path / "kept")
    async with running(server_settings(tmp_path / "data", database_url)) as server, client_of(server) as client:
        assert (await statuses(server))[SERVICE] == _Status.NOT_SERVING
        assert not file.exists()
        (tmp_path / "kept").rename(file)
        await until(lambda: _serves(server), seconds=40)
        assert await client.credentials.value("db") == "the secret"


async def _serves(server: RunningServer) -> bool:
    return bool((await statuses(server))[SERVICE] == _Status.SERVING)


async def test_a_rotation_is_felt_by_the_other_server(database_url: str, tmp_path: Path) -> None:
    settings = server_settings(tmp_path / "data", database_url)  # they share the key file
    async with running(settings) as one, running(settings) as two, client_of(one) as first, client_of(two) as second:
        await first.credentials.create("db", "one")
        before = (await second.credentials.key_status()).keys[0].key_id
        started = await first.credentials.rotate_key()
        new = started.keys[0].key_id
        assert new != before
        added = await until(lambda: _added_under(second, new), seconds=30)
        assert added
        await until(lambda: _rotated(first), seconds=60)
        assert await second.credentials.value("db") == "one again"
        await first.credentials.rotate_key(before, action=credential_pb2.KEY_ACTION_RETIRE)
        with pytest.raises(FailedPrecondition):
            await second.credentials.rotate_key(before)


async def test_a_key_that_another_server_lacks_does_not_become_the_primary_one(
    database_url: str, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "one" / "credentials.keys", tmp_path / "two" / "credentials.keys"
    async with running(server_settings(ours.parent, database_url)) as one, client_of(one) as first:
        await first.credentials.create("db", "the secret")
        (old,) = (await first.credentials.key_status()).keys
        theirs.parent.mkdir(mode=0o700)
        shutil.copy(ours, theirs)
        settings = server_settings(theirs.parent, database_url)
        async with running(settings) as two, client_of(two, one.admin_key) as second:
            with pytest.raises(FailedPrecondition, match="configure it there") as refused:
                await first.credentials.rotate_key()
            assert refused.value.reason == "ROTATION_NOT_READY"
            assert (await statuses(two))[SERVICE] == _Status.SERVING
            assert await second.credentials.value("db") == "the secret"
            assert (await second.credentials.add_version("db", "the secret")).encryption_key_id == old.key_id
            shutil.copy(ours, theirs)
            started = await first.credentials.rotate_key()  # the one that was made
            assert len(started.keys) == 2
            assert started.keys[0].key_id != old.key_id
            await until(lambda: _added_under(second, started.keys[0].key_id), seconds=30)
        await until(lambda: _rotated(first), seconds=60)
        assert await first.credentials.value("db") == "one again"


async def _added_under(client: Client, key_id: str) -> bool:
    return (await client.credentials.add_version("db", "one again")).encryption_key_id == key_id


async def _rotated(client: Client) -> bool:
    return (await client.credentials.key_status()).rotation.remaining == 0
