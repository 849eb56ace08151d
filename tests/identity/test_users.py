"""Organizations and users, and who may change whom."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, PermissionDenied, Reason
from stationmaster_server.identity.keys import NewKey
from stationmaster_server.identity.model import Caller, RequestKey, Role
from stationmaster_server.identity.service import NewUser

from tests.identity.conftest import Server, as_user, make_caller


async def test_a_created_user_is_found_listed_and_counted(server: Server, owner: Caller) -> None:
    made = await server.create_user(owner, Role.MEMBER, email="ann@example.com")
    assert await server.users.get_user(owner, made.id) == made
    page = await server.users.list_users(owner, 'role = MEMBER AND email = "ann@example.com"', "", PageRequest(10))
    assert page.items == [made]
    usage = await server.settings.usage(owner, owner.tenant.organization_id, of_organization=True)
    assert usage.users == 2


async def test_an_email_is_one_users_whatever_its_case(server: Server, owner: Caller, stranger: Caller) -> None:
    await server.create_user(owner, Role.MEMBER, email="ann@example.com")
    with pytest.raises(AlreadyExists):
        await server.create_user(owner, Role.MEMBER, email="ANN@example.com")
    other = await server.create_user(owner, Role.MEMBER, email="bob@example.com")
    with pytest.raises(AlreadyExists):
        await server.users.update_user(owner, other.id, {"email": "ann@example.com"})
    await server.create_user(stranger, Role.MEMBER, email="ann@example.com")


async def test_users_of_others_do_not_exist(server: Server, owner: Caller, stranger: Caller) -> None:
    texts = set()
    nobody = uuid4()
    for user_id in (owner.tenant.user_id, nobody):
        for attempt in (
            server.users.get_user(stranger, user_id),
            server.users.update_user(stranger, user_id, {"display_name": "x"}),
            server.users.disable_user(stranger, user_id),
        ):
            with pytest.raises(NotFound) as refusal:
                await attempt
            texts.add(refusal.value.message.replace(str(user_id), "-"))
    assert len(texts) == 1


async def test_organizations_of_others_do_not_exist(server: Server, owner: Caller, stranger: Caller) -> None:
    texts = set()
    for organization_id in (owner.tenant.organization_id, nobody := uuid4()):
        with pytest.raises(NotFound) as refusal:
            await server.users.get_organization(stranger, organization_id)
        texts.add(refusal.value.message.replace(str(organization_id), "-"))
        with pytest.raises(NotFound):
            await server.users.create_user(stranger, NewUser("x", Role.MEMBER), organization_id)
    assert (len(texts), nobody) == (1, nobody)
    page = await server.users.list_organizations(stranger, "", "", PageRequest(10))
    assert [organization.id for organization in page.items] == [stranger.tenant.organization_id]


async def test_an_operator_makes_organizations_and_users_in_them(
    server: Server, owner: Caller, operator: Caller
) -> None:
    made = await server.users.create_organization(operator, "Acme", "Ann", "ann@acme.example")
    user = await server.users.create_user(operator, NewUser("Bob", Role.OWNER), made.id)
    key = await server.keys.create(operator, NewKey(user_id=user.id))
    identity = await server.authenticator.authenticate(f"Bearer {key.secret}")
    assert identity.tenant.organization_id == made.id
    assert "organizations.admin" not in identity.scopes
    page = await server.users.list_organizations(operator, 'display_name = "Acme"', "", PageRequest(10))
    assert page.items == [made]
    found = await server.users.get_organization(operator, owner.tenant.organization_id)
    assert found.id == owner.tenant.organization_id
    with pytest.raises(PermissionDenied):
        await server.users.create_organization(owner, "Mine", "Me", "")


@pytest.mark.parametrize("role", [Role.MEMBER, Role.SERVICE, Role.VIEWER])
async def test_users_who_do_not_administer_make_and_change_no_others(server: Server, owner: Caller, role: Role) -> None:
    user = await server.create_user(owner, role)
    caller = as_user(user)
    for attempt in (
        server.create_user(caller, Role.VIEWER),
        server.users.update_user(caller, owner.tenant.user_id, {"display_name": "x"}),
        server.users.update_user(caller, user.id, {"role": Role.OWNER}),
        server.users.update_user(caller, user.id, {"external_subject": "x"}),
        server.users.disable_user(caller, user.id),
    ):
        with pytest.raises(PermissionDenied) as refusal:
            await attempt
        assert refusal.value.reason is Reason.ROLE_INSUFFICIENT
    assert (await server.users.update_user(caller, user.id, {"display_name": "Me"})).display_name == "Me"


async def test_an_administrator_cannot_reach_above_its_role(server: Server, owner: Caller) -> None:
    admin = as_user(await server.create_user(owner, Role.ADMIN))
    member = await server.create_user(admin, Role.MEMBER)
    for attempt in (
        server.create_user(admin, Role.OWNER),
        server.users.update_user(admin, admin.tenant.user_id, {"role": Role.OWNER}),
        server.users.update_user(admin, member.id, {"role": Role.OWNER}),
        server.users.update_user(admin, owner.tenant.user_id, {"display_name": "x"}),
        server.users.disable_user(admin, owner.tenant.user_id),
    ):
        with pytest.raises(PermissionDenied) as refusal:
            await attempt
        assert refusal.value.reason is Reason.ROLE_INSUFFICIENT
    assert (await server.users.update_user(admin, member.id, {"role": Role.ADMIN})).role is Role.ADMIN


async def test_a_narrow_key_cannot_widen_itself_through_a_new_user(server: Server, owner: Caller) -> None:
    narrow = make_caller(owner.tenant, Role.OWNER, "identity.write")
    for attempt in (
        server.create_user(narrow, Role.OWNER, external_subject="me"),
        server.users.update_user(narrow, owner.tenant.user_id, {"external_subject": "me"}),
    ):
        with pytest.raises(PermissionDenied) as refusal:
            await attempt
        assert refusal.value.reason is Reason.SCOPE_MISSING


async def test_the_last_owner_stays(server: Server, owner: Caller) -> None:
    for attempt in (
        server.users.disable_user(owner, owner.tenant.user_id),
        server.users.update_user(owner, owner.tenant.user_id, {"role": Role.MEMBER}),
    ):
        with pytest.raises(PermissionDenied) as refusal:
            await attempt
        assert refusal.value.reason is Reason.ROLE_INSUFFICIENT
    await server.create_user(owner, Role.OWNER)
    assert (await server.users.disable_user(owner, owner.tenant.user_id)).disabled_at is not None


async def test_owners_who_turn_on_each_other_leave_one(server: Server, owner: Caller) -> None:
    others = [await server.create_user(owner, Role.OWNER) for _ in range(4)]
    ids = [owner.tenant.user_id, *(user.id for user in others)]
    attempts = [server.users.disable_user(owner, user_id) for user_id in ids]
    answers = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(answer, PermissionDenied) for answer in answers) == 1
    page = await server.users.list_users(owner, "disabled = false", "", PageRequest(10))
    assert len(page.items) == 1


async def test_a_stale_etag_is_refused(server: Server, owner: Caller) -> None:
    user = await server.create_user(owner, Role.MEMBER)
    changed = await server.users.update_user(owner, user.id, {"display_name": "One"}, str(user.revision))
    with pytest.raises(Aborted) as refusal:
        await server.users.update_user(owner, user.id, {"display_name": "Two"}, str(user.revision))
    assert refusal.value.reason is Reason.ETAG_MISMATCH
    assert (await server.users.get_user(owner, user.id)).display_name == "One"
    await server.users.update_user(owner, user.id, {"display_name": "Two"}, str(changed.revision))


async def test_an_update_that_changes_nothing_writes_nothing(server: Server, owner: Caller) -> None:
    user = await server.create_user(owner, Role.MEMBER)
    assert await server.users.update_user(owner, user.id, {"role": Role.MEMBER}) == user


async def test_repeats_of_a_request_answer_alike_and_do_nothing_else(
    server: Server, owner: Caller, database: Database
) -> None:
    caller = replace(owner, request_key=RequestKey(uuid4(), "/CreateUser", b"body"))
    answers = await asyncio.gather(*(server.create_user(caller, Role.MEMBER) for _ in range(10)))
    assert len({answer.id for answer in answers}) == 1
    assert all(answer == answers[0] for answer in answers)
    async with database.system(autocommit=True) as tx:
        assert await tx.fetchval("SELECT count(*) FROM audit_events WHERE action = 'user.create'") == 1
        assert await tx.fetchval("SELECT count(*) FROM users WHERE role = 'member'") == 1


async def test_a_bad_filter_names_the_fields(server: Server, owner: Caller) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await server.users.list_users(owner, "shoe_size > 4", "", PageRequest(10))
    assert refusal.value.reason is Reason.INVALID_FILTER
    assert "display_name" in refusal.value.message


async def test_every_change_is_audited_with_who_made_it(server: Server, owner: Caller, database: Database) -> None:
    user = await server.create_user(owner, Role.MEMBER)
    await server.users.update_user(owner, user.id, {"display_name": "New"})
    await server.users.disable_user(owner, user.id)
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch("SELECT * FROM audit_events WHERE resource = $1 ORDER BY id", f"users/{user.id}")
    assert [row["action"] for row in rows] == ["user.create", "user.update", "user.disable"]
    assert {row["actor"] for row in rows} == {f"users/{owner.tenant.user_id}"}


async def test_who_am_i_tells_user_organization_and_key(server: Server, owner: Caller) -> None:
    created = await server.create_key(owner)
    identity = await server.authenticator.authenticate(f"Bearer {created.secret}")
    me = await server.users.who_am_i(identity.caller(request_id="r", peer="p", method="m"))
    assert me.user.id == owner.tenant.user_id
    assert me.organization.id == owner.tenant.organization_id
    assert me.api_key is not None
    assert me.api_key.id == created.key.id
