"""IdentityService as messages in and messages out."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import identity_pb2 as pb
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.identity.model import Caller
from stationmaster_server.identity.servicer import IdentityServicer
from stationmaster_server.wire.caller import calling
from stationmaster_server.wire.paging import PageTokens

from tests.identity.conftest import Server

NO_CONTEXT: Any = None


@pytest.fixture
def servicer(server: Server) -> IdentityServicer:
    """The servicer of a server."""
    return IdentityServicer(server.users, server.keys, server.settings, PageTokens(b"secret"))


async def test_a_user_is_made_changed_listed_and_disabled(servicer: IdentityServicer, owner: Caller) -> None:
    with calling(owner):
        wanted = pb.User(display_name="Ann", email="ann@example.com", role=pb.ROLE_MEMBER)
        made = await servicer.CreateUser(pb.CreateUserRequest(user=wanted), NO_CONTEXT)
        assert (made.display_name, made.role, made.disabled) == ("Ann", pb.ROLE_MEMBER, False)
        assert made.organization == f"organizations/{owner.tenant.organization_id}"
        made.role, made.display_name = pb.ROLE_ADMIN, "ignored: it is not in the mask"
        request = pb.UpdateUserRequest(user=made, update_mask=FieldMask(paths=["role"]))
        changed = await servicer.UpdateUser(request, NO_CONTEXT)
        assert (changed.role, changed.display_name) == (pb.ROLE_ADMIN, "Ann")
        assert changed.etag != made.etag
        disabled = await servicer.DisableUser(pb.DisableUserRequest(name=made.name), NO_CONTEXT)
        assert disabled.disabled
        assert await servicer.GetUser(pb.GetUserRequest(name=made.name), NO_CONTEXT) == disabled
        listed = await servicer.ListUsers(pb.ListUsersRequest(filter="disabled = true"), NO_CONTEXT)
        assert list(listed.users) == [disabled]


async def test_pages_are_followed_by_their_tokens(servicer: IdentityServicer, owner: Caller) -> None:
    names: list[str] = []
    with calling(owner):
        for _ in range(5):
            await servicer.CreateApiKey(pb.CreateApiKeyRequest(api_key=pb.ApiKey()), NO_CONTEXT)
        token = ""
        while True:
            request = pb.ListApiKeysRequest(page_size=2, page_token=token, order_by="expire_time")
            page = await servicer.ListApiKeys(request, NO_CONTEXT)
            names += [key.name for key in page.api_keys]
            token = page.next_page_token
            if not token:
                break
        with pytest.raises(InvalidArgument):
            await servicer.ListApiKeys(pb.ListApiKeysRequest(page_token="forged"), NO_CONTEXT)
    assert len(set(names)) == len(names) == 5


async def test_a_key_is_shown_once_and_told_by_its_prefix(servicer: IdentityServicer, owner: Caller) -> None:
    request = pb.CreateApiKeyRequest(api_key=pb.ApiKey(scopes=["sessions.read"]), request_id=str(uuid4()))
    with calling(owner):
        first = await servicer.CreateApiKey(request, NO_CONTEXT)
        again = await servicer.CreateApiKey(request, NO_CONTEXT)
        revoked = await servicer.RevokeApiKey(pb.RevokeApiKeyRequest(name=first.api_key.name), NO_CONTEXT)
    assert first.secret.startswith(first.api_key.prefix)
    assert (again.secret, again.api_key) == ("", first.api_key)
    assert revoked.revoked


async def test_absent_limits_are_no_limits(servicer: IdentityServicer, owner: Caller) -> None:
    name = f"organizations/{owner.tenant.organization_id}/quota"
    with calling(owner):
        quota = pb.Quota(name=name, max_users=5, max_calls_per_hour=0)
        made = await servicer.SetQuota(pb.SetQuotaRequest(quota=quota), NO_CONTEXT)
        assert (made.max_users, made.max_calls_per_hour) == (5, 0)
        assert made.HasField("max_calls_per_hour")
        assert not made.HasField("max_storage_bytes")
        mask = FieldMask(paths=["max_users"])
        request = pb.SetQuotaRequest(quota=pb.Quota(name=name), update_mask=mask, validate_only=True)
        assert not (await servicer.SetQuota(request, NO_CONTEXT)).HasField("max_users")
        assert await servicer.GetQuota(pb.GetQuotaRequest(name=name), NO_CONTEXT) == made
        usage = await servicer.GetQuotaUsage(pb.GetQuotaUsageRequest(name=name), NO_CONTEXT)
    assert (usage.name, usage.users) == (name, 1)


async def test_who_am_i(servicer: IdentityServicer, server: Server, owner: Caller) -> None:
    created = await server.create_key(owner, None, "sessions.*")
    identity = await server.authenticator.authenticate(f"Bearer {created.secret}")
    with calling(identity.caller(request_id="r", peer="p", method="m")):
        me = await servicer.WhoAmI(pb.WhoAmIRequest(), NO_CONTEXT)
    assert (me.method, list(me.scopes)) == ("api_key", ["sessions.*"])
    assert me.user.name == f"users/{owner.tenant.user_id}"
    assert me.api_key.name == f"apiKeys/{created.key.id}"
