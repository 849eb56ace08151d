"""Rules about tools of users and organizations: who sets them, and what they say of calls made directly."""

from __future__ import annotations

import base64
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import agent_pb2
from stationmaster.v1 import identity_pb2 as pb
from stationmaster_server.errors import Aborted, InvalidArgument, NotFound, PermissionDenied
from stationmaster_server.identity import store
from stationmaster_server.identity.model import Caller, Effect, RequestKey, Role, ToolPolicy, Webhook
from stationmaster_server.identity.policies import denied
from stationmaster_server.identity.servicer import IdentityServicer
from stationmaster_server.wire.caller import calling
from stationmaster_server.wire.paging import PageTokens

from tests.identity.conftest import Server, as_user, make_caller

NO_CONTEXT: Any = None
DENY_FILES = (ToolPolicy("files.*", Effect.DENY),)
URL = "https://example.com/hook"
SECRET = bytes(range(32))


async def test_an_owner_gives_its_organization_rules(server: Server, owner: Caller) -> None:
    organization_id = owner.tenant.organization_id
    before = await server.users.get_organization(owner, organization_id)
    changed = await server.users.update_organization(
        owner, organization_id, {"tool_policies": DENY_FILES}, etag=str(before.revision)
    )
    assert changed.tool_policies == DENY_FILES
    assert changed.revision == before.revision + 1
    assert await server.users.get_organization(owner, organization_id) == changed
    with pytest.raises(Aborted):
        await server.users.update_organization(
            owner, organization_id, {"display_name": "late"}, etag=str(before.revision)
        )


async def test_members_do_not_change_rules_not_even_their_own(server: Server, owner: Caller) -> None:
    member = as_user(await server.create_user(owner, Role.MEMBER))
    with pytest.raises(PermissionDenied):
        await server.users.update_organization(member, owner.tenant.organization_id, {"tool_policies": DENY_FILES})
    with pytest.raises(PermissionDenied):
        await server.users.update_user(member, member.tenant.user_id, {"tool_policies": DENY_FILES})
    changed = await server.users.update_user(owner, member.tenant.user_id, {"tool_policies": DENY_FILES})
    assert changed.tool_policies == DENY_FILES
    assert await server.users.get_user(owner, changed.id) == changed


async def test_another_organization_is_an_operators_to_change(
    server: Server, owner: Caller, stranger: Caller, operator: Caller
) -> None:
    organization_id = owner.tenant.organization_id
    with pytest.raises(NotFound):
        await server.users.update_organization(stranger, organization_id, {"display_name": "Mine"})
    changed = await server.users.update_organization(operator, organization_id, {"display_name": "Yours"})
    assert changed.display_name == "Yours"
    with pytest.raises(NotFound):
        await server.users.update_organization(operator, uuid4(), {"display_name": "Nobody's"})


async def test_a_repeated_change_gets_the_first_answer(server: Server, owner: Caller) -> None:
    key = RequestKey(uuid4(), "UpdateOrganization", b"fingerprint")
    caller = Caller(
        owner.tenant, owner.role, owner.scopes, None, owner.subject, owner.request_id, owner.peer, owner.method, key
    )
    changes = {"tool_policies": DENY_FILES}
    first = await server.users.update_organization(caller, owner.tenant.organization_id, changes, Webhook(URL, SECRET))
    assert await server.users.update_organization(caller, owner.tenant.organization_id, changes) == first


async def test_a_direct_call_is_denied_by_the_user_or_the_organization(server: Server, owner: Caller) -> None:
    member = as_user(await server.create_user(owner, Role.MEMBER))

    async def says(tool: str) -> str | None:
        async with server.database.tenant(member.tenant, read=True) as tx:
            return await denied(tx, member, tool)

    assert await says("files.read") is None
    await server.users.update_organization(
        owner, owner.tenant.organization_id, {"tool_policies": (ToolPolicy("files.*", Effect.ASK),)}
    )
    assert await says("files.read") is None, "who calls a tool itself need not be asked"
    await server.users.update_user(
        owner, member.tenant.user_id, {"tool_policies": (ToolPolicy("*.read", Effect.DENY),)}
    )
    assert "files.read" in (await says("files.read") or "")
    assert await says("files.write") is None
    await server.users.update_organization(owner, owner.tenant.organization_id, {"tool_policies": DENY_FILES})
    assert await says("files.write") is not None


async def test_a_webhook_keeps_its_secret_until_it_gets_another_or_goes(server: Server, owner: Caller) -> None:
    organization_id = owner.tenant.organization_id

    async def change(webhook: Webhook) -> Webhook | None:
        await server.users.update_organization(owner, organization_id, {}, webhook)
        async with server.database.tenant(owner.tenant, read=True) as tx:
            return await store.webhook_of(tx, organization_id)

    with pytest.raises(InvalidArgument):
        await change(Webhook(URL))
    assert await change(Webhook(URL, SECRET)) == Webhook(URL, SECRET)
    assert await change(Webhook(f"{URL}/2")) == Webhook(f"{URL}/2", SECRET)
    assert await change(Webhook(f"{URL}/2", SECRET[::-1])) == Webhook(f"{URL}/2", SECRET[::-1])
    assert await change(Webhook()) is None
    with pytest.raises(InvalidArgument):
        await change(Webhook(URL))


async def test_the_secret_of_a_webhook_is_in_no_answer(server: Server, owner: Caller) -> None:
    servicer = IdentityServicer(server.users, server.keys, server.settings, PageTokens(b"secret"))
    text = f"whsec_{base64.b64encode(SECRET).decode()}"
    wanted = pb.Organization(
        name=f"organizations/{owner.tenant.organization_id}",
        permission_webhook=pb.PermissionWebhook(url=URL, secret=text),
        tool_policies=[agent_pb2.ToolPolicy(pattern="files.*", effect=agent_pb2.TOOL_EFFECT_DENY)],
    )
    with calling(owner):
        changed = await servicer.UpdateOrganization(pb.UpdateOrganizationRequest(organization=wanted), NO_CONTEXT)
        assert changed.permission_webhook == pb.PermissionWebhook(url=URL)
        assert changed.tool_policies == wanted.tool_policies
        assert changed.display_name == "Tests"
        assert await servicer.GetOrganization(pb.GetOrganizationRequest(name=wanted.name), NO_CONTEXT) == changed
        wanted.permission_webhook.secret = "whsec_" + "A" * 33
        with pytest.raises(InvalidArgument):
            await servicer.UpdateOrganization(pb.UpdateOrganizationRequest(organization=wanted), NO_CONTEXT)
        gone = pb.UpdateOrganizationRequest(
            organization=pb.Organization(name=wanted.name),
            update_mask=FieldMask(paths=["tool_policies", "permission_webhook"]),
        )
        emptied = await servicer.UpdateOrganization(gone, NO_CONTEXT)
    assert not emptied.tool_policies
    assert not emptied.HasField("permission_webhook")
    assert emptied.update_time.ToDatetime() >= changed.update_time.ToDatetime()


async def test_a_key_that_may_only_read_changes_no_rules(server: Server, owner: Caller) -> None:
    viewer = make_caller(owner.tenant, Role.VIEWER)
    with pytest.raises(PermissionDenied):
        await server.users.update_organization(viewer, owner.tenant.organization_id, {"tool_policies": DENY_FILES})
