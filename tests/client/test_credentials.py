"""`client.credentials` against the real server, and what others are answered."""

from __future__ import annotations

import pytest
from google.protobuf.json_format import MessageToDict
from stationmaster.v1 import audit_pb2, credential_pb2, identity_pb2
from stationmaster_client import Client
from stationmaster_client.errors import NotFound

from tests.fixtures.server import RunningServer


def client_of(server: RunningServer, key: str = "") -> Client:
    return Client.connect(server.target, key or server.admin_key, insecure=True)


async def test_a_rotation_is_finished_only_when_the_test_passes(server: RunningServer) -> None:
    tried = []

    async def works(value: str) -> bool:
        tried.append(value)
        return value != "bad"

    async def breaks(value: str) -> bool:
        raise ConnectionError("the database is away")

    async with client_of(server) as client:
        await client.credentials.create("db", "old")
        kept = await client.credentials.rotate("db", "bad", test=works)
        assert (kept.current_version, kept.pending_version) == ("credentials/db/versions/1", "")
        with pytest.raises(ConnectionError):
            await client.credentials.rotate("db", "also bad", test=breaks)
        assert await client.credentials.value("db") == "old"
        done = await client.credentials.rotate("db", "new", test=works)
        assert done.current_version == "credentials/db/versions/4"
        assert await client.credentials.value("db", purpose="test") == "new"
        assert tried == ["bad", "new"]


async def test_settings_are_listed_by_category_with_their_types(server: RunningServer) -> None:
    async with client_of(server) as client:
        about = credential_pb2.Credential(category="rag_strategy")
        for credential_id, value in (
            ("top-k", 5),
            ("hybrid", True),
            ("model", "mini"),
            ("weights", {"a": [0.5, None]}),
        ):
            await client.credentials.create(credential_id, setting=value, credential=about)
        await client.credentials.create("key", "a secret", credential=about)
        listed = [one async for one in client.credentials.list(filter='category = "rag_strategy"')]
        found = {one.name: MessageToDict(one.setting) for one in listed if not one.encrypted}
        assert found == {
            "credentials/top-k": 5,
            "credentials/hybrid": True,
            "credentials/model": "mini",
            "credentials/weights": {"a": [0.5, None]},
        }
        assert [one.name for one in listed if one.encrypted] == ["credentials/key"]


async def test_a_viewer_reads_no_values_and_a_member_only_what_was_granted(server: RunningServer) -> None:
    async with client_of(server) as admin:
        await admin.credentials.create("db", "the secret")
        keys = {}
        for role in (identity_pb2.ROLE_MEMBER, identity_pb2.ROLE_VIEWER):
            user = await admin.users.create("Somebody", role=role)
            made = await admin.keys.create(user=user.name)
            keys[role] = (user.name, made.secret)
        for user_name, secret in keys.values():
            async with client_of(server, secret) as other:
                with pytest.raises(NotFound):
                    await other.credentials.get("db")
                await admin.credentials.grant("db", user_name)
                assert (await other.credentials.get("db")).name == "credentials/db"
        async with client_of(server, keys[identity_pb2.ROLE_MEMBER][1]) as member:
            assert await member.credentials.value("db") == "the secret"
        async with client_of(server, keys[identity_pb2.ROLE_VIEWER][1]) as viewer:
            with pytest.raises(Exception, match=r"credentials\.values\.read"):
                await viewer.credentials.value("db")
        events = [event async for event in admin.audit.list(filter='action = "credential.access"')]
        assert [event.outcome for event in events] == [audit_pb2.AUDIT_OUTCOME_ALLOWED]
