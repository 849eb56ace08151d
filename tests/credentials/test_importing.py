"""Credentials of environment variables, and requests that are repeated."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from stationmaster_server.config.credentials import allowed_variables
from stationmaster_server.credentials.importing import Import
from stationmaster_server.credentials.model import OnExisting, StoredKey, Value
from stationmaster_server.credentials.providers.environment import EnvironmentKeys
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import RequestKey, Tenant
from stationmaster_server.db.roles import APP_ROLE
from stationmaster_server.errors import AlreadyExists, InvalidArgument, PermissionDenied, Reason

from tests.credentials.room import Room, caller_of, file_keys, make_room, trail
from tests.waiting import until

VARIABLES = {"APP_TOKEN": "a token", "APP_DB_PASSWORD": "a password", "OTHER": "x"}
KEYS = ",".join(f"{name}:{b64encode(bytes([byte]) * 32).decode()}" for name, byte in (("a", 1), ("b", 2)))


def request(caller: Caller, text: str, request_id: UUID) -> Caller:
    """The caller of a request with this body."""
    key = RequestKey(request_id, caller.method, hashlib.sha256(text.encode()).digest())
    return replace(caller, request_key=key)


async def test_variables_with_a_prefix_become_credentials(room: Room, owner: Caller) -> None:
    imported = await room.importing.run(owner, Import("APP_", VARIABLES, strip_prefix=True))
    assert [made.credential_id for made in imported.credentials] == ["db-password", "token"]
    assert await room.read(owner, "token") == "a token"
    again = await room.importing.run(owner, Import("APP_", VARIABLES, strip_prefix=True))
    assert (again.credentials, again.skipped) == ((), ("credentials/db-password", "credentials/token"))


async def test_those_that_changed_get_a_new_version_and_all_or_none_are_imported(room: Room, owner: Caller) -> None:
    await room.importing.run(owner, Import("APP_", VARIABLES))
    changed = {**VARIABLES, "APP_TOKEN": "another"}
    imported = await room.importing.run(owner, Import("APP_", changed, on_existing=OnExisting.ADD_VERSION))
    assert [made.credential_id for made in imported.credentials] == ["app-token"]
    assert await room.read(owner, "app-token") == "another"
    more = {**VARIABLES, "APP_A": "x"}
    with pytest.raises(AlreadyExists):
        await room.importing.run(owner, Import("APP_", more, on_existing=OnExisting.FAIL))
    for bad in ({"A__": "x", "A": "y"}, {"_1": "x"}, {"A": ""}):
        with pytest.raises(InvalidArgument):
            await room.importing.run(owner, Import("", bad))
    tried = await room.importing.run(owner, Import("", {"NEW": "x"}), validate_only=True)
    assert [made.credential_id for made in tried.credentials] == ["new"]
    assert await _count(room) == 2


async def test_a_trial_says_what_the_import_would_do_and_uses_no_key_up(room: Room, owner: Caller) -> None:
    await room.importing.run(owner, Import("APP_", VARIABLES))
    wraps = await _wraps(room)
    changed = {**VARIABLES, "APP_TOKEN": "another", "APP_NEW": "x"}
    wanted = Import("APP_", changed, on_existing=OnExisting.ADD_VERSION)
    tried = await room.importing.run(owner, wanted, validate_only=True)
    assert [made.credential_id for made in tried.credentials] == ["app-new", "app-token"]
    assert tried.skipped == ("credentials/app-db-password",)
    assert await room.read(owner, "app-token") == "a token"
    assert await _wraps(room) == wraps
    await room.importing.run(owner, Import("APP_", VARIABLES))
    assert await _wraps(room) == wraps
    done = await room.importing.run(owner, wanted)
    assert ([made.credential_id for made in done.credentials], done.skipped) == (
        ["app-new", "app-token"],
        tried.skipped,
    )


async def _wraps(room: Room) -> int:
    """How many wraps of the key were counted and may not be used any more by this server."""
    async with room.database.system(autocommit=True) as tx:
        return int(await tx.fetchval("SELECT sum(wraps) FROM credential_keys")) - room.keyring._reserved


class WatchedKeys(EnvironmentKeys):
    """Notes how many transactions are open while the keys are read."""

    def __init__(self, database_url: str) -> None:
        super().__init__(KEYS)
        self._database_url = database_url
        self.open_transactions: list[int] = []

    async def keys(self, stored: Sequence[StoredKey]) -> Mapping[str, bytes]:
        watching = await asyncpg.connect(self._database_url)
        sql = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND application_name = $1 AND state LIKE 'idle in transaction%'"""
        self.open_transactions.append(await watching.fetchval(sql, APP_ROLE))
        await watching.close()
        return await super().keys(stored)


async def test_an_import_compares_with_what_another_server_wrote_under_a_key_that_is_new_here(
    database: Database, database_url: str, owner: Caller
) -> None:
    """No transaction is open while the keys are looked at, which may take a file or a key service."""
    watched = WatchedKeys(database_url)
    late = await make_room(database, [watched], active="a")
    other = await make_room(database, [EnvironmentKeys(KEYS)])
    await other.keys.start(owner, "b")
    await other.importing.run(owner, Import("APP_", VARIABLES))
    await until(lambda: _done(other))
    assert late.keyring.present == {"a"}
    watched.open_transactions.clear()
    imported = await late.importing.run(owner, Import("APP_", VARIABLES, on_existing=OnExisting.ADD_VERSION))
    assert (imported.credentials, len(imported.skipped)) == ((), 2)
    assert watched.open_transactions == [0]
    for one in (late, other):
        await one.close()


async def _done(room: Room) -> bool:
    return not room.keys._going_on


async def _count(room: Room) -> int:
    async with room.database.system(autocommit=True) as tx:
        return int(await tx.fetchval("SELECT count(*) FROM credentials"))


async def test_the_servers_own_variables_are_for_operators_and_only_those_that_are_allowed(
    room: Room, owner: Caller, tenant: Tenant, tmp_path: Path
) -> None:
    environment = {"APP_TOKEN": "x", "DATABASE_URL": "x", "STATIONMASTER_CREDENTIALS__KEYS": "x", "PGPASSWORD": "x"}
    assert allowed_variables(("*",), environment) == {"APP_TOKEN": "x"}
    assert allowed_variables((), environment) == {}
    server = await make_room(room.database, file_keys(tmp_path), variables={"APP_TOKEN": "the server's"})
    with pytest.raises(PermissionDenied):
        await server.importing.run(caller_of(tenant), Import("APP_", {}))
    with pytest.raises(InvalidArgument):
        await server.importing.run(owner, Import("", {}))
    await server.importing.run(owner, Import("APP_", {}))
    assert await server.read(owner, "app-token") == "the server's"
    await server.close()


async def test_a_repeat_gets_the_first_answer_also_after_the_key_was_rotated(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "one")
    request_id = uuid4()
    first = await room.versions.add(request(owner, "body", request_id), "db", Value("two"))
    old = room.keyring.primary
    await room.keys.start(owner, "")
    assert room.keyring.primary != old
    again = await room.versions.add(request(owner, "body", request_id), "db", Value("two"))
    assert again == first
    with pytest.raises(InvalidArgument) as refused:
        await room.versions.add(request(owner, "another body", request_id), "db", Value("three"))
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_what_is_kept_of_a_request_does_not_tell_its_secret(room: Room, owner: Caller) -> None:
    """Whoever has the database could hash every PIN: a bare digest of the request would tell which it was."""
    await room.create(owner, "db", "one")
    await room.versions.add(request(owner, "a body with the PIN 1234", uuid4()), "db", Value("1234"))
    async with room.database.system(autocommit=True) as tx:
        kept = await tx.fetch("SELECT fingerprint, answer::text AS answer FROM request_ids")
    assert kept
    bare = hashlib.sha256(b"a body with the PIN 1234").digest()
    assert all(row["fingerprint"] != bare for row in kept)
    assert not any('"1234"' in row["answer"] for row in kept)


async def test_each_of_many_imported_credentials_is_in_the_audit_trail(room: Room, owner: Caller) -> None:
    many = {f"APP_{number:03}": "x" for number in range(150)}
    imported = await room.importing.run(owner, Import("APP_", many))
    told = await trail(room.database, owner.tenant, "credential.import")
    names = {made.name for made in imported.credentials}
    assert len(names) == 150
    assert {event["resource"] for event in told} == {"credentials", *names}
    await room.importing.run(owner, Import("APP_", {"APP_000": "y"}, on_existing=OnExisting.ADD_VERSION))
    told = await trail(room.database, owner.tenant, "credential.import")
    assert [event["resource"] for event in told].count("credentials/app-000") == 2


def test_what_the_server_asks_aws_as_is_never_handed_out() -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN")
    environ = dict.fromkeys((*names, "AWS_BUCKET"), "x")
    assert allowed_variables(("*",), environ) == {"AWS_BUCKET": "x"}
