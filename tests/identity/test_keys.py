"""API keys: made, shown once, believed, refused."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from stationmaster.v1 import agent_pb2, audit_pb2, identity_pb2, options_pb2, session_pb2
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.errors import InvalidArgument, NotFound, PermissionDenied, Reason, Unauthenticated
from stationmaster_server.identity.authentication import Certificate, Origin
from stationmaster_server.identity.keys import NewKey
from stationmaster_server.identity.model import (
    KNOWN_SCOPES,
    ROLE_SCOPES,
    Caller,
    RequestKey,
    Role,
    Tenant,
    unknown_scopes,
)

from tests.identity.conftest import Server, as_user, make_caller, start_server


async def test_a_key_is_who_it_was_made_for(server: Server, owner: Caller) -> None:
    member = await server.create_user(owner, Role.MEMBER)
    created = await server.create_key(owner, member)
    identity = await server.authenticator.authenticate(f"Bearer {created.secret}")
    assert identity.tenant == Tenant(member.organization_id, member.id)
    assert identity.role is Role.MEMBER
    assert identity.key_id == created.key.id


async def test_the_secret_is_stored_nowhere(server: Server, owner: Caller, database: Database) -> None:
    key = RequestKey(uuid4(), "/CreateApiKey", b"body")
    created = await server.keys.create(replace(owner, request_key=key), NewKey())
    assert created.secret is not None
    secret_part = created.secret.split("_", 2)[2]
    async with database.system(autocommit=True) as tx:
        for table in ("api_keys", "request_ids", "audit_events"):
            rows = await tx.fetch(f"SELECT t::text AS row FROM {table} t")
            assert rows
            assert not any(secret_part in row["row"] for row in rows)


async def test_a_creation_that_is_repeated_after_the_key_expired_has_its_first_answer(
    server: Server, owner: Caller
) -> None:
    caller = replace(owner, request_key=RequestKey(uuid4(), "/CreateApiKey", b"body"))
    created = await server.keys.create(caller, NewKey(expires_at=datetime.now(UTC) + timedelta(hours=1)))
    expired = NewKey(expires_at=datetime.now(UTC) - timedelta(hours=1))
    assert (await server.keys.create(caller, expired)).key == created.key
    with pytest.raises(InvalidArgument):
        await server.keys.create(owner, expired)


async def test_a_repeated_creation_answers_with_the_same_key_and_without_its_secret(
    server: Server, owner: Caller, database: Database
) -> None:
    caller = replace(owner, request_key=RequestKey(uuid4(), "/CreateApiKey", b"body"))
    first = await server.keys.create(caller, NewKey(display_name="ci"))
    second = await server.keys.create(caller, NewKey(display_name="ci"))
    assert first.secret is not None
    assert second.secret is None
    assert second.key == first.key
    page = await server.keys.list(owner, "", "", PageRequest(10))
    assert [key.id for key in page.items] == [first.key.id]


async def test_a_request_id_of_another_request_is_refused(server: Server, owner: Caller) -> None:
    request_id = uuid4()
    await server.keys.create(replace(owner, request_key=RequestKey(request_id, "/CreateApiKey", b"one")), NewKey())
    with pytest.raises(InvalidArgument) as refusal:
        await server.keys.create(replace(owner, request_key=RequestKey(request_id, "/CreateApiKey", b"two")), NewKey())
    assert refusal.value.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, Reason.CREDENTIALS_MISSING),
        ("", Reason.CREDENTIALS_MISSING),
        ("Basic dXNlcjpwYXNz", Reason.CREDENTIALS_INVALID),
        ("Bearer ", Reason.CREDENTIALS_INVALID),
        ("Bearer nonsense", Reason.CREDENTIALS_INVALID),
        ("Bearer sm_short", Reason.CREDENTIALS_INVALID),
        (f"Bearer sm_abcdefghij_{'x' * 43}", Reason.CREDENTIALS_INVALID),
        (f"Bearer sm_abcdefghij_{'é' * 43}", Reason.CREDENTIALS_INVALID),
    ],
)
async def test_what_is_no_key_is_refused(server: Server, authorization: str | None, reason: Reason) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        await server.authenticator.authenticate(authorization)
    assert refusal.value.reason is reason
    assert server.authenticator.refusals[reason] == 1


async def test_a_known_prefix_with_a_wrong_secret_is_refused_as_an_unknown_one(server: Server, owner: Caller) -> None:
    created = await server.create_key(owner)
    assert created.secret is not None
    texts = set()
    for secret in (created.secret[:-43] + "x" * 43, f"sm_abcdefghij_{'x' * 43}"):
        with pytest.raises(Unauthenticated) as refusal:
            await server.authenticator.authenticate(f"Bearer {secret}")
        texts.add((refusal.value.reason, refusal.value.message))
    assert len(texts) == 1


async def test_an_expired_key_is_refused(server: Server, owner: Caller, database: Database) -> None:
    created = await server.create_key(owner)
    async with database.system() as tx:
        await tx.execute("UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE id = $1", created.key.id)
    with pytest.raises(Unauthenticated) as refusal:
        await server.authenticator.authenticate(f"Bearer {created.secret}")
    assert refusal.value.reason is Reason.CREDENTIALS_EXPIRED


async def test_a_key_that_would_be_born_expired_is_refused(server: Server, owner: Caller) -> None:
    with pytest.raises(InvalidArgument):
        await server.keys.create(owner, NewKey(expires_at=datetime.now(UTC) - timedelta(seconds=1)))


async def test_a_revoked_key_is_refused_within_a_second_on_another_server(
    server: Server, servers: AsyncExitStack, owner: Caller, database: Database
) -> None:
    other = await start_server(servers, database)
    created = await server.create_key(owner)
    authorization = f"Bearer {created.secret}"
    await other.authenticator.authenticate(authorization)
    await server.keys.revoke(owner, created.key.id)
    revoked = time.monotonic()
    reason = None
    while reason is None and time.monotonic() < revoked + 1:
        try:
            await other.authenticator.authenticate(authorization)
            await asyncio.sleep(0.01)
        except Unauthenticated as refusal:
            reason = refusal.reason
    assert reason is Reason.CREDENTIALS_REVOKED


async def test_a_key_is_forgotten_within_a_second_when_the_notification_is_lost(
    server: Server, servers: AsyncExitStack, owner: Caller, database: Database
) -> None:
    other = await start_server(servers, database)
    created = await server.create_key(owner)
    authorization = f"Bearer {created.secret}"
    await other.listener.stop()
    await other.authenticator.authenticate(authorization)
    await server.keys.revoke(owner, created.key.id)
    revoked = time.monotonic()
    refused = False
    while not refused and time.monotonic() < revoked + 1.2:
        try:
            await other.authenticator.authenticate(authorization)
            await asyncio.sleep(0.02)
        except Unauthenticated:
            refused = True
    assert refused


async def test_keys_of_a_disabled_user_are_refused(server: Server, owner: Caller) -> None:
    member = await server.create_user(owner, Role.MEMBER)
    created = await server.create_key(owner, member)
    await server.users.disable_user(owner, member.id)
    server.authenticator.forget()
    with pytest.raises(PermissionDenied) as refusal:
        await server.authenticator.authenticate(f"Bearer {created.secret}")
    assert refusal.value.reason is Reason.USER_DISABLED


async def test_the_refusal_of_a_known_key_is_in_its_organizations_audit_trail(
    server: Server, owner: Caller, database: Database
) -> None:
    created = await server.create_key(owner)
    await server.keys.revoke(owner, created.key.id)
    server.authenticator.forget()
    with pytest.raises(Unauthenticated):
        await server.authenticator.authenticate(f"Bearer {created.secret}", origin=Origin("/m", "r", "ipv4:1"))
    async with database.system(autocommit=True) as tx:
        row = await tx.fetchrow("SELECT * FROM audit_events WHERE action = 'authenticate'")
    assert row is not None
    assert row["organization_id"] == owner.tenant.organization_id
    assert (row["outcome"], row["reason"], row["request_id"]) == ("denied", "CREDENTIALS_REVOKED", "r")
    assert row["resource"] == f"apiKeys/{created.key.id}"


async def test_the_last_use_of_a_key_is_noted_once_a_minute(
    servers: AsyncExitStack, owner: Caller, database: Database
) -> None:
    async with AsyncExitStack() as stack:
        server = await start_server(stack, database)
        created = await server.create_key(owner)
        for _ in range(3):
            await server.authenticator.authenticate(f"Bearer {created.secret}")
    async with database.system(autocommit=True) as tx:
        first = await tx.fetchval("SELECT last_used_at FROM api_keys")
    assert first is not None
    async with AsyncExitStack() as stack:
        server = await start_server(stack, database)
        await server.authenticator.authenticate(f"Bearer {created.secret}")
    async with database.system(autocommit=True) as tx:
        assert await tx.fetchval("SELECT last_used_at FROM api_keys") == first


async def test_a_member_sees_and_revokes_its_own_keys_only(server: Server, owner: Caller) -> None:
    member = await server.create_user(owner, Role.MEMBER)
    own = await server.create_key(as_user(member))
    other = await server.create_key(owner)
    page = await server.keys.list(as_user(member), "", "", PageRequest(10))
    assert [key.id for key in page.items] == [own.key.id]
    with pytest.raises(NotFound):
        await server.keys.revoke(as_user(member), other.key.id)
    assert (await server.keys.revoke(as_user(member), own.key.id)).revoked_at is not None


async def test_a_key_has_no_more_than_its_creator(server: Server, owner: Caller) -> None:
    member = await server.create_user(owner, Role.MEMBER)
    narrow = as_user(member, "identity.write", "sessions.read")
    with pytest.raises(PermissionDenied) as refusal:
        await server.create_key(narrow, None, "sessions.*")
    assert refusal.value.reason is Reason.SCOPE_MISSING
    with pytest.raises(PermissionDenied):
        await server.create_key(narrow)
    assert (await server.create_key(narrow, None, "sessions.read")).key.scopes == ("sessions.read",)


async def test_no_one_but_an_operator_makes_an_operators_key(server: Server, owner: Caller, operator: Caller) -> None:
    with pytest.raises(PermissionDenied):
        await server.create_key(owner, None, "*", "organizations.admin")
    created = await server.create_key(operator, None, "*", "organizations.admin")
    identity = await server.authenticator.authenticate(f"Bearer {created.secret}")
    assert "organizations.admin" in identity.scopes


async def test_an_administrator_makes_no_key_for_an_owner(server: Server, owner: Caller) -> None:
    admin = await server.create_user(owner, Role.ADMIN)
    second_owner = await server.create_user(owner, Role.OWNER)
    with pytest.raises(PermissionDenied) as refusal:
        await server.create_key(as_user(admin), second_owner)
    assert refusal.value.reason is Reason.ROLE_INSUFFICIENT


async def test_keys_of_others_do_not_exist(server: Server, owner: Caller, stranger: Caller) -> None:
    created = await server.create_key(owner)
    nobodys = uuid4()
    texts = set()
    for key_id in (created.key.id, nobodys):
        with pytest.raises(NotFound) as refusal:
            await server.keys.revoke(stranger, key_id)
        texts.add(refusal.value.message.replace(str(key_id), "-"))
    assert len(texts) == 1
    with pytest.raises(NotFound):
        await server.keys.create(stranger, NewKey(user_id=owner.tenant.user_id))
    assert (await server.keys.list(stranger, "", "", PageRequest(10))).items == []


async def test_keys_are_listed_in_pages_and_by_filter(server: Server, owner: Caller) -> None:
    made = [(await server.create_key(owner)).key.id for _ in range(5)]
    await server.keys.revoke(owner, made[0])
    seen, page = [], PageRequest(2)
    while True:
        answer = await server.keys.list(owner, "revoked = false", "create_time", page)
        seen += [key.id for key in answer.items]
        if answer.next_cursor is None:
            break
        page = PageRequest(2, answer.next_cursor)
    assert seen == made[1:]
    mine = await server.keys.list(owner, f'user = "users/{owner.tenant.user_id}"', "expire_time desc", PageRequest(9))
    assert {key.id for key in mine.items} == set(made)


async def test_a_certificate_is_the_user_that_its_name_is_the_subject_of(server: Server, owner: Caller) -> None:
    robot = await server.create_user(owner, Role.SERVICE, external_subject="robot.example")
    certificate = Certificate(("spiffe://unknown", "robot.example"), str(owner.tenant.organization_id))
    identity = await server.authenticator.authenticate(None, certificate)
    assert identity.tenant.user_id == robot.id
    assert identity.subject == "mtls:robot.example"
    with pytest.raises(Unauthenticated):
        await server.authenticator.authenticate(None, Certificate(("robot.example",), str(uuid4())))


async def test_a_subject_without_organization_is_no_one_where_there_are_several(
    server: Server, owner: Caller, stranger: Caller
) -> None:
    await server.create_user(owner, Role.SERVICE, external_subject="robot")
    with pytest.raises(Unauthenticated):
        await server.authenticator.authenticate(None, Certificate(("robot",)))


async def test_a_viewer_may_not_make_keys_that_write(server: Server, owner: Caller) -> None:
    viewer = await server.create_user(owner, Role.VIEWER)
    created = await server.keys.create(owner, NewKey(user_id=viewer.id, scopes=("sessions.*",)))
    identity = await server.authenticator.authenticate(f"Bearer {created.secret}")
    assert identity.scopes == {"sessions.read"}
    assert make_caller(identity.tenant, Role.VIEWER).scopes > identity.scopes


def test_the_known_scopes_are_those_of_the_methods_and_of_the_areas_that_roles_name() -> None:
    needed = {
        method.GetOptions().Extensions[options_pb2.scope]
        for proto in (agent_pb2, audit_pb2, identity_pb2, session_pb2)
        for service in proto.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert needed - {""} <= KNOWN_SCOPES
    assert not unknown_scopes(KNOWN_SCOPES.union(*ROLE_SCOPES.values()))


@pytest.mark.parametrize("scope", ["sesions.*", "sessions.reed", "organizations.*"])
async def test_a_key_whose_scope_would_allow_nothing_is_refused(server: Server, owner: Caller, scope: str) -> None:
    with pytest.raises(InvalidArgument, match=r"would allow nothing; there are: .*sessions\.read"):
        await server.keys.create(owner, NewKey(scopes=("sessions.read", scope)))
