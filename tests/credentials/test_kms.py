"""Keys that AWS KMS encrypts, against moto's server; who asks, and how requests are signed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from stationmaster_server.app.credentials import key_providers
from stationmaster_server.config import load
from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.envelope import KeyEncryptionKey
from stationmaster_server.credentials.model import RotationState
from stationmaster_server.credentials.providers.aws_kms import AwsKmsKeys
from stationmaster_server.credentials.providers.file import FileKeys
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.resilience.aws_identity import AwsIdentities, NoIdentity
from stationmaster_server.resilience.aws_signing import AwsIdentity, signed

from tests.credentials.room import Room, file_keys, make_room
from tests.fixtures import moto
from tests.resilience.site import answer, serve
from tests.waiting import until

REGION = "eu-central-1"
SOMEBODY = AwsIdentity("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")

pytestmark = pytest.mark.timeout(300)


@pytest_asyncio.fixture
async def kms() -> AsyncIterator[str]:
    """Where KMS is."""
    async with moto.serving() as url:
        yield url


async def ask(url: str, action: str, body: dict[str, Any]) -> dict[str, Any]:
    """A call of an administrator of AWS."""
    content = json.dumps(body).encode()
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": f"TrentService.{action}"}
    sent = signed(SOMEBODY, url, headers, content, region=REGION, service="kms", at=datetime.now(UTC))
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, content=content, headers=sent)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def keys_of(url: str, kms_key: str, *former: str) -> AwsKmsKeys:
    return AwsKmsKeys(kms_key, REGION, AwsIdentities(SOMEBODY), url, former=former)


async def test_a_key_of_kms_is_never_on_a_disk_and_the_same_after_a_restart(
    kms: str, database: Database, tmp_path: Path, owner: Caller
) -> None:
    kms_key = (await ask(kms, "CreateKey", {}))["KeyMetadata"]["Arn"]
    room = await make_room(database, [keys_of(kms, kms_key), *file_keys(tmp_path, make=False)])
    assert not room.keyring.problem
    await room.create(owner, "db", "the secret")
    again = await make_room(database, [keys_of(kms, kms_key)])
    assert await again.read(owner, "db") == "the secret"
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    material, _ = (await again.keyring.make("x", ())) or pytest.fail("no key")
    async with database.system(autocommit=True) as tx:
        stored = await tx.fetchrow("SELECT key_id, provider, material FROM credential_keys")
    assert stored is not None
    assert stored["provider"] == "aws-kms"
    assert material.key not in stored["material"]
    for one in (room, again):
        await one.close()


async def test_what_kms_refuses_is_told(kms: str, database: Database) -> None:
    room = await make_room(database, [keys_of(kms, "6f2d7a0e-0000-4000-8000-000000000000")])
    assert "AWS KMS refuses GenerateDataKey" in room.keyring.problem
    assert "NotFoundException" in room.keyring.problem
    await room.close()


async def test_keys_move_from_a_file_to_kms_by_a_rotation(
    kms: str, database: Database, tmp_path: Path, owner: Caller
) -> None:
    room = await make_room(database, file_keys(tmp_path))
    await room.create(owner, "db", "the secret")
    old = room.keyring.primary
    await room.close()
    kms_key = (await ask(kms, "CreateKey", {}))["KeyMetadata"]["KeyId"]
    moved = await make_room(database, [keys_of(kms, kms_key), FileKeys(tmp_path / "credentials.keys", make=False)])
    assert moved.keyring.primary == old
    await moved.keys.start(owner, "")
    await moved.rewrapper.run()
    status = await moved.keys.status(owner)
    while status.rotation is not None and status.rotation.state is not RotationState.DONE:
        await moved.rewrapper.run()
        status = await moved.keys.status(owner)
    await moved.keys.retire(owner, old)
    (tmp_path / "credentials.keys").unlink()
    alone = await make_room(database, [keys_of(kms, kms_key)])
    assert await alone.read(owner, "db") == "the secret"
    await moved.close()
    await alone.close()


async def test_a_key_that_another_key_of_the_account_encrypts_is_not_taken(
    kms: str, database: Database, owner: Caller
) -> None:
    """Whoever may write to the database and use any key of the account could have us encrypt under a key of theirs."""
    ours, theirs = [(await ask(kms, "CreateKey", {}))["KeyMetadata"]["Arn"] for _ in range(2)]
    room = await make_room(database, [keys_of(kms, ours)])
    await room.create(owner, "db", "the secret")
    await room.close()
    forged = await keys_of(kms, theirs).make(room.keyring.primary, ())
    assert forged is not None
    canary = KeyEncryptionKey(forged.key_id, forged.key).make_canary()
    async with database.system() as tx:
        before = await tx.fetchrow("SELECT material, canary FROM credential_keys")
        await tx.execute("UPDATE credential_keys SET material = $1, canary = $2", forged.stored, canary)
    deceived = await make_room(database, [keys_of(kms, ours)])
    assert "AWS KMS refuses Decrypt" in deceived.keyring.problem
    assert "credentials.kms_former_keys" in deceived.keyring.problem
    await deceived.close()
    assert before is not None
    async with database.system() as tx:
        await tx.execute("UPDATE credential_keys SET material = $1, canary = $2", *before)
    again = await make_room(database, [keys_of(kms, ours)])
    assert await again.read(owner, "db") == "the secret"
    await again.close()


async def test_what_a_former_key_of_kms_encrypts_is_read_until_it_is_rotated(
    kms: str, database: Database, owner: Caller
) -> None:
    former, other, now = [(await ask(kms, "CreateKey", {}))["KeyMetadata"]["Arn"] for _ in range(3)]
    room = await make_room(database, [keys_of(kms, former)])
    await room.create(owner, "db", "the secret")
    await room.close()
    moved = await make_room(database, [keys_of(kms, now, other, former)])
    assert await moved.read(owner, "db") == "the secret"
    old = moved.keyring.primary
    await moved.keys.start(owner, "")
    await moved.rewrapper.run()
    await until(lambda: _retired(moved, owner, old))
    await moved.close()
    alone = await make_room(database, [keys_of(kms, now)])
    assert await alone.read(owner, "db") == "the secret"
    await alone.close()


async def test_a_key_service_that_ends_takes_no_key_out_of_memory(database: Database, owner: Caller) -> None:
    async with moto.serving() as url:
        kms_key = (await ask(url, "CreateKey", {}))["KeyMetadata"]["Arn"]
        room = await make_room(database, [keys_of(url, kms_key)])
        await room.create(owner, "db", "the secret")
        foreign = await keys_of(url, (await ask(url, "CreateKey", {}))["KeyMetadata"]["Arn"]).make("foreign", ())
        assert foreign is not None
        canary = KeyEncryptionKey("foreign", foreign.key).make_canary()
        async with database.system() as tx:
            await key_store.insert(tx, "foreign", "aws-kms", canary, foreign.stored)
        assert await room.keyring.refresh() == ""
        assert "AWS KMS refuses Decrypt" in room.keyring.warning
    assert await room.keyring.refresh() == ""
    assert "does not work" in room.keyring.warning
    assert await room.read(owner, "db") == "the secret"
    await room.close()


async def _retired(room: Room, owner: Caller, key_id: str) -> bool:
    rotation = (await room.keys.status(owner)).rotation
    if rotation is None or rotation.state is not RotationState.DONE:
        return False
    await room.keys.retire(owner, key_id)
    return True


async def test_a_key_service_that_is_away_is_told_and_tried_again(database: Database) -> None:
    room = await make_room(database, [keys_of("http://127.0.0.1:9", "alias/none")])
    assert "does not work" in room.keyring.problem
    await room.close()


@pytest.mark.parametrize(
    "odd",
    [
        "{}",
        "[]",
        "captive portal",
        '{"Plaintext": 5}',
        '{"Plaintext": "!"}',
        '{"Plaintext": "c2hvcnQ=", "CiphertextBlob": ""}',
    ],
)
async def test_what_answers_oddly_is_told_and_ends_nothing(database: Database, odd: str) -> None:
    async with serve({"/": answer(odd.encode())}) as site:
        room = await make_room(database, [keys_of(f"http://127.0.0.1:{site.port}", "alias/none")])
        assert "AWS KMS" in room.keyring.problem
        await room.close()


def test_requests_are_signed_as_awss_test_suite_has_it() -> None:
    """`post-vanilla` of the Signature Version 4 test suite."""
    at = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    sent = signed(SOMEBODY, "https://example.amazonaws.com", {}, b"", region="us-east-1", service="service", at=at)
    assert sent["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
    )


class Lender:
    """What lends identities to containers and machines, and notes how it was asked."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url.copy_with(query=None)
        self.seen.append(f"{request.method} {url} {request.headers.get('authorization', '')}".strip())
        if request.url.path.endswith("/token"):
            return httpx2.Response(200, text="t")
        if request.url.path.endswith("security-credentials/"):
            return httpx2.Response(200, text="role\n")
        expires_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
        lent = {"AccessKeyId": "A", "SecretAccessKey": "S", "Token": "T", "Expiration": expires_at}
        return httpx2.Response(200, json=lent)


def identities_of(**environ: str) -> AwsIdentities:
    """As a server that was started in this environment has them."""
    settings = load(environ={"AWS_REGION": REGION, "STATIONMASTER_CREDENTIALS__KMS_KEY": "alias/one", **environ})
    (kms, *_) = key_providers(settings)
    assert isinstance(kms, AwsKmsKeys)
    return kms._identities


async def test_the_role_of_a_container_or_a_machine_is_asked_for_once_while_it_lasts(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("letmein\n")
    full = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"}
    asked = {
        # EKS
        identities_of(**full, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token)): [
            "GET http://169.254.170.23/v1/credentials letmein"
        ],
        identities_of(**full, AWS_CONTAINER_AUTHORIZATION_TOKEN="given"): [
            "GET http://169.254.170.23/v1/credentials given"
        ],
        # ECS
        identities_of(**full, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI="/v2/credentials/one"): [
            "GET http://169.254.170.2/v2/credentials/one"
        ],
        # EC2
        identities_of(): [
            "PUT http://169.254.169.254/latest/api/token",
            "GET http://169.254.169.254/latest/meta-data/iam/security-credentials/",
            "GET http://169.254.169.254/latest/meta-data/iam/security-credentials/role",
        ],
    }
    for identities, expected in asked.items():
        lender = Lender()
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(lender)) as client:
            for _ in range(2):
                assert (await identities.current(client)).token == "T"
        assert lender.seen == expected


async def test_a_token_file_that_is_slow_holds_nothing_else_up(tmp_path: Path) -> None:
    """The pipe has no writer yet: whoever opens it waits until the loop has gone on to the next line here."""
    pipe, lender = tmp_path / "token", Lender()
    os.mkfifo(pipe)
    identities = AwsIdentities(None, container_url="http://127.0.0.1/", token_file=pipe)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(lender)) as client:
        asking = asyncio.create_task(identities.current(client))
        await asyncio.sleep(0)
        await asyncio.to_thread(pipe.write_text, "letmein\n")
        assert (await asking).token == "T"
    assert lender.seen == ["GET http://127.0.0.1/ letmein"]


async def test_without_an_identity_it_is_said_what_to_do() -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(404))
    async with httpx2.AsyncClient(transport=transport) as client:
        with pytest.raises(NoIdentity, match="AWS_ACCESS_KEY_ID"):
            await AwsIdentities(None).current(client)
