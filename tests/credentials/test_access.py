"""Who gets a value, and what the trail says of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials.access import ACTION, Request
from stationmaster_server.credentials.model import Grant, Label, Source
from stationmaster_server.credentials.providers.file import FileKeys
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    StationmasterError,
    Unavailable,
)
from stationmaster_server.identity.model import AuditEntry

from tests.credentials.room import NOBODY, Room, another_user, api_key_of, caller_of, file_keys, make_room, trail


def grant_to(principal: str, *purposes: str, until: datetime | None = None) -> Grant:
    return Grant(NOBODY, "", principal, purposes, until, NOBODY)


async def test_owner_and_grantees_get_the_value_and_nobody_else(room: Room, owner: Caller, tenant: Tenant) -> None:
    await room.create(owner, "db", "the secret")
    member = caller_of(await another_user(room.database, tenant), Role.MEMBER)
    admin = caller_of(await another_user(room.database, tenant, Role.ADMIN), Role.ADMIN)
    assert await room.read(owner, "db") == "the secret"
    with pytest.raises(NotFound):
        await room.read(member, "db")
    with pytest.raises(PermissionDenied) as denied:  # it is seen, and changed, but not read
        await room.read(admin, "db")
    assert denied.value.reason is Reason.ACCESS_NOT_GRANTED
    made = await room.grants.grant(owner, "db", grant_to(f"users/{member.tenant.user_id}"))
    assert await room.read(member, "db") == "the secret"
    with pytest.raises(PermissionDenied):
        await room.credentials.update(member, "db", {"display_name": "mine"})
    await room.grants.revoke(owner, "db", made.id)
    with pytest.raises(NotFound):
        await room.read(member, "db")


async def test_a_grant_counts_for_its_purposes_and_until_its_end(room: Room, owner: Caller, tenant: Tenant) -> None:
    await room.create(owner, "db", "the secret")
    member = caller_of(await another_user(room.database, tenant), Role.MEMBER)
    until = datetime.now(UTC) + timedelta(hours=1)
    await room.grants.grant(owner, "db", grant_to(f"users/{member.tenant.user_id}", "backup", until=until))
    assert await room.read(member, "db", purpose="backup") == "the secret"
    for purpose in ("", "restore"):
        with pytest.raises(PermissionDenied):
            await room.read(member, "db", purpose=purpose)
    async with room.database.system() as tx:
        await tx.execute("UPDATE credential_grants SET expires_at = now()")
    with pytest.raises(NotFound):
        await room.read(member, "db", purpose="backup")
    with pytest.raises(InvalidArgument, match="past"):
        await room.grants.grant(owner, "db", grant_to(f"users/{NOBODY}", until=datetime.now(UTC)))


async def test_a_service_is_granted_by_its_key_and_an_agent_by_its_name(
    room: Room, owner: Caller, tenant: Tenant
) -> None:
    await room.create(owner, "db", "the secret")
    user = await another_user(room.database, tenant, Role.SERVICE)
    service = caller_of(user, Role.SERVICE, key_id=await api_key_of(room.database, user))
    other = caller_of(user, Role.SERVICE, key_id=await api_key_of(room.database, user))
    await room.grants.grant(owner, "db", grant_to(f"apiKeys/{service.key_id}"))
    assert await room.read(service, "db") == "the secret"
    with pytest.raises(NotFound):
        await room.read(other, "db")
    async with room.database.system() as tx:
        await tx.execute(
            """INSERT INTO agents (organization_id, agent_id, uid, display_name, description, model, spec, etag)
               VALUES ($1, 'helper', $2, '', '', 'demo', '{"model": "demo"}', 'e')""",
            tenant.organization_id,
            uuid4(),
        )
    await room.grants.grant(owner, "db", grant_to("agents/helper", "model"))
    accessed = await room.access.access(other, Request("db", purpose="model", agent_id="helper"))
    assert accessed.secret == "the secret"
    with pytest.raises(NotFound):
        await room.access.access(other, Request("db", purpose="model", agent_id="another"))


async def test_nothing_is_granted_to_who_is_not_there(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "the secret")
    for principal in (f"users/{uuid4()}", f"apiKeys/{uuid4()}", "agents/nobody"):
        with pytest.raises(NotFound):
            await room.grants.grant(owner, "db", grant_to(principal))
    for principal in ("users/1", "teams/a", "agents/", "x"):
        with pytest.raises(InvalidArgument):
            await room.grants.grant(owner, "db", grant_to(principal))


async def test_every_access_is_in_the_trail_allowed_or_not(room: Room, owner: Caller, tenant: Tenant) -> None:
    await room.create(owner, "db", "the secret")
    await room.read(owner, "db", purpose="backup")
    await room.versions.disable(owner, "db", 1)
    other = await another_user(room.database, tenant)
    attempts = [(owner, "db"), (owner, "nothing"), (caller_of(other), "db"), (caller_of(other, Role.MEMBER), "db")]
    for caller, credential_id in attempts:
        with pytest.raises(StationmasterError):
            await room.read(caller, credential_id, Label.CURRENT)
    told = await trail(room.database, tenant, ACTION)
    assert [(event["outcome"], event["reason"], event["resource"]) for event in told] == [
        ("allowed", "", "credentials/db"),
        ("denied", "CREDENTIAL_UNUSABLE", "credentials/db"),
        ("denied", "RESOURCE_NOT_FOUND", "credentials/nothing"),
        ("denied", "ACCESS_NOT_GRANTED", "credentials/db"),  # an admin, who sees it
        ("denied", "ACCESS_NOT_GRANTED", "credentials/db"),  # a member, who was told that there is none
    ]
    assert told[0]["details"] == {"purpose": "backup", "version": 1}
    assert "the secret" not in repr(told)


async def test_an_attempt_while_keys_are_away_is_in_the_trail(
    room: Room, owner: Caller, tenant: Tenant, tmp_path: Path
) -> None:
    await room.create(owner, "db", "the secret")
    stranger = caller_of(await another_user(room.database, tenant), Role.MEMBER)
    keyless = await make_room(room.database, [FileKeys(tmp_path / "nothing", make=False)])
    with pytest.raises(Unavailable):
        await keyless.read(owner, "db", purpose="backup")
    with pytest.raises(NotFound):
        await keyless.read(stranger, "db")
    told = [(event["outcome"], event["reason"]) for event in await trail(room.database, tenant, ACTION)]
    assert told == [("failed", "ENCRYPTION_KEY_UNAVAILABLE"), ("denied", "ACCESS_NOT_GRANTED")]
    await keyless.close()


async def test_no_audit_event_no_value(room: Room, owner: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    await room.create(owner, "db", "the secret")

    async def away(self: AuditLog, caller: Caller, entry: AuditEntry) -> None:
        raise Unavailable(Reason.DATABASE_UNAVAILABLE, "the database is away")

    monkeypatch.setattr(AuditLog, "write_alone", away)
    with pytest.raises(Unavailable):
        await room.read(owner, "db")


async def test_a_deleted_credential_gives_nothing_until_it_is_undeleted(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "the secret")
    deleted = await room.credentials.delete(owner, "db")
    assert deleted.purge_at is not None
    with pytest.raises(FailedPrecondition) as refusal:
        await room.read(owner, "db")
    assert refusal.value.reason is Reason.CREDENTIAL_UNUSABLE
    await room.credentials.undelete(owner, "db")
    assert await room.read(owner, "db") == "the secret"


async def test_a_variable_of_the_servers_environment_is_read_through_where_it_is_allowed(
    room: Room, owner: Caller, tenant: Tenant, tmp_path: Path
) -> None:
    await room.create(owner, "openai", environment_variable="OPENAI_API_KEY")
    with pytest.raises(FailedPrecondition):
        await room.read(owner, "openai")
    variables = {"OPENAI_API_KEY": "sk-from-the-environment"}
    allowed = await make_room(room.database, file_keys(tmp_path), variables=variables)
    accessed = await allowed.access.access(owner, Request("openai"))
    await allowed.close()
    assert (accessed.secret, accessed.source) == ("sk-from-the-environment", Source.ENVIRONMENT)
    simple = caller_of(tenant)
    with pytest.raises(PermissionDenied):
        await room.create(simple, "path", environment_variable="PATH")


async def test_what_is_read_at_once_is_read_together_and_everybody_gets_his_own(
    room: Room, owner: Caller, tenant: Tenant
) -> None:
    for number in range(20):
        await room.create(owner, f"c{number}", f"secret {number}")
    member = caller_of(await another_user(room.database, tenant), Role.MEMBER)

    async def outcome(caller: Caller, number: int) -> str:
        try:
            return await room.read(caller, f"c{number}")
        except NotFound:
            return "not found"

    reads = [outcome(caller, number % 25) for number in range(300) for caller in (owner, member)]
    cut = asyncio.create_task(outcome(owner, 0))
    await asyncio.sleep(0)
    cut.cancel()  # takes nobody else's read with it
    found = await asyncio.gather(*reads)
    expected = [f"secret {n % 25}" if n % 25 < 20 else "not found" for n in range(300)]
    assert found[::2] == expected
    assert set(found[1::2]) == {"not found"}


async def test_the_same_is_granted_once(room: Room, owner: Caller, tenant: Tenant) -> None:
    member = await another_user(room.database, tenant)
    to = f"users/{member.user_id}"
    await room.create(owner, "db", "x")
    made = await room.grants.grant(owner, "db", grant_to(to, "backup", "report"))
    with pytest.raises(AlreadyExists) as refused:
        await room.grants.grant(owner, "db", grant_to(to, "report", "backup"))
    assert made.name in str(refused.value)
    await room.grants.grant(owner, "db", grant_to(to, "backup"))
