"""Who may call, and how much: organizations, users, API keys and quotas."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Unpack

from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import identity_pb2, identity_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query
from stationmaster_client.times import to_timestamp


class _Identity:
    """What the parts of IdentityService share."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = identity_pb2_grpc.IdentityServiceStub(calls.channel)


class Organizations(_Identity):
    """`organizations/…`: the border that no data crosses."""

    async def create(
        self, display_name: str, *, owner_display_name: str, owner_email: str = ""
    ) -> identity_pb2.Organization:
        """Create an organization with its first user. For the operators of the installation."""
        request = identity_pb2.CreateOrganizationRequest(
            organization=identity_pb2.Organization(display_name=display_name),
            owner_display_name=owner_display_name,
            owner_email=owner_email,
        )
        return await self._calls.unary(self._stub.CreateOrganization, request)

    async def get(self, name: str) -> identity_pb2.Organization:
        """Return one organization."""
        request = identity_pb2.GetOrganizationRequest(name=full("organizations", name))
        return await self._calls.unary(self._stub.GetOrganization, request)

    def list(
        self, **query: Unpack[Query]
    ) -> Listing[identity_pb2.Organization, identity_pb2.ListOrganizationsResponse]:
        """List organizations: the caller's own, or all for operators."""

        async def fetch(token: str) -> identity_pb2.ListOrganizationsResponse:
            request = identity_pb2.ListOrganizationsRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListOrganizations, request)

        return Listing(fetch, lambda page: page.organizations)

    async def update(
        self, organization: identity_pb2.Organization, paths: Iterable[str] = ()
    ) -> identity_pb2.Organization:
        """Change the fields named by `paths`, or all that are set."""
        mask = FieldMask(paths=paths)
        request = identity_pb2.UpdateOrganizationRequest(
            organization=organization, update_mask=mask if mask.paths else None
        )
        return await self._calls.unary(self._stub.UpdateOrganization, request)


class Users(_Identity):
    """`users/…` of the caller's organization."""

    async def create(
        self,
        display_name: str,
        role: identity_pb2.Role.ValueType,
        *,
        email: str = "",
        external_subject: str = "",
        organization: str = "",
        request_id: str = "",
    ) -> identity_pb2.User:
        """Create a user; operators may name another organization."""
        user = identity_pb2.User(display_name=display_name, role=role, email=email, external_subject=external_subject)
        request = identity_pb2.CreateUserRequest(
            user=user,
            organization=full("organizations", organization) if organization else "",
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.CreateUser, request)

    async def get(self, name: str) -> identity_pb2.User:
        """Return one user."""
        return await self._calls.unary(self._stub.GetUser, identity_pb2.GetUserRequest(name=full("users", name)))

    def list(self, **query: Unpack[Query]) -> Listing[identity_pb2.User, identity_pb2.ListUsersResponse]:
        """List the users of the organization."""

        async def fetch(token: str) -> identity_pb2.ListUsersResponse:
            request = identity_pb2.ListUsersRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListUsers, request)

        return Listing(fetch, lambda page: page.users)

    async def update(self, user: identity_pb2.User, paths: Iterable[str] = ()) -> identity_pb2.User:
        """Change the fields named by `paths`, or all that are set."""
        mask = FieldMask(paths=paths)
        request = identity_pb2.UpdateUserRequest(user=user, update_mask=mask if mask.paths else None)
        return await self._calls.unary(self._stub.UpdateUser, request)

    async def disable(self, name: str) -> identity_pb2.User:
        """Disable a user: its keys are refused from then on."""
        request = identity_pb2.DisableUserRequest(name=full("users", name))
        return await self._calls.unary(self._stub.DisableUser, request)


class Keys(_Identity):
    """`apiKeys/…`."""

    async def create(
        self,
        display_name: str = "",
        *,
        user: str = "",
        scopes: Iterable[str] = (),
        expire_time: datetime | None = None,
        request_id: str = "",
    ) -> identity_pb2.CreateApiKeyResponse:
        """Create a key, the caller's own without `user`. The answer is the only time that its secret is shown."""
        key = identity_pb2.ApiKey(
            display_name=display_name,
            user=full("users", user) if user else "",
            scopes=scopes,
            expire_time=to_timestamp(expire_time),
        )
        request = identity_pb2.CreateApiKeyRequest(api_key=key, request_id=request_id)
        return await self._calls.unary(self._stub.CreateApiKey, request)

    def list(self, **query: Unpack[Query]) -> Listing[identity_pb2.ApiKey, identity_pb2.ListApiKeysResponse]:
        """List keys, without secrets."""

        async def fetch(token: str) -> identity_pb2.ListApiKeysResponse:
            request = identity_pb2.ListApiKeysRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListApiKeys, request)

        return Listing(fetch, lambda page: page.api_keys)

    async def revoke(self, name: str) -> identity_pb2.ApiKey:
        """Revoke a key for good."""
        request = identity_pb2.RevokeApiKeyRequest(name=full("apiKeys", name))
        return await self._calls.unary(self._stub.RevokeApiKey, request)


class Quotas(_Identity):
    """`users/…/quota` and `organizations/…/quota`."""

    async def get(self, name: str) -> identity_pb2.Quota:
        """Return the quota of a user or organization; `name` may leave out the `/quota`."""
        return await self._calls.unary(self._stub.GetQuota, identity_pb2.GetQuotaRequest(name=quota_name(name)))

    async def set(
        self, quota: identity_pb2.Quota, paths: Iterable[str] = (), *, validate_only: bool = False
    ) -> identity_pb2.Quota:
        """Set the fields named by `paths`; without them all, and an absent one then means: no limit."""
        mask = FieldMask(paths=paths)
        request = identity_pb2.SetQuotaRequest(
            quota=quota, update_mask=mask if mask.paths else None, validate_only=validate_only
        )
        return await self._calls.unary(self._stub.SetQuota, request)

    async def usage(self, name: str) -> identity_pb2.QuotaUsage:
        """Return how much of a quota is used."""
        request = identity_pb2.GetQuotaUsageRequest(name=quota_name(name))
        return await self._calls.unary(self._stub.GetQuotaUsage, request)


def quota_name(owner: str) -> str:
    """The quota of `users/…` or `organizations/…`."""
    return owner if owner.endswith("/quota") else f"{owner}/quota"
