"""IdentityService: messages in, the services, messages out."""

from __future__ import annotations

from typing import Any

import grpc
from stationmaster.v1 import identity_pb2 as pb
from stationmaster.v1 import identity_pb2_grpc

from stationmaster_server.identity.convert import (
    KEY_NAME,
    ORGANIZATION_FIELDS,
    ORGANIZATION_NAME,
    QUOTA_FIELDS,
    USER_FIELDS,
    USER_NAME,
    key_to_proto,
    new_key,
    new_user,
    organization_changes,
    organization_to_proto,
    parse_quota_name,
    quota_changes,
    quota_to_proto,
    usage_to_proto,
    user_changes,
    user_to_proto,
    webhook_change,
    who_to_proto,
)
from stationmaster_server.identity.keys import ApiKeys
from stationmaster_server.identity.quota_settings import QuotaSettings
from stationmaster_server.identity.service import IdentityService
from stationmaster_server.wire.caller import caller_of, current_caller
from stationmaster_server.wire.fields import masked
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """The methods of IdentityService."""

    def __init__(self, service: IdentityService, keys: ApiKeys, quotas: QuotaSettings, tokens: PageTokens) -> None:
        self._service = service
        self._keys = keys
        self._quotas = quotas
        self._tokens = tokens

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """The caller as it sees itself."""
        caller = current_caller()
        return who_to_proto(caller, await self._service.who_am_i(caller))

    async def CreateOrganization(self, request: pb.CreateOrganizationRequest, context: Context) -> pb.Organization:
        """A new organization with an owner."""
        name = request.organization.display_name
        made = await self._service.create_organization(
            caller_of(request), name, request.owner_display_name, request.owner_email
        )
        return organization_to_proto(made)

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Context) -> pb.Organization:
        """One organization."""
        organization_id = parse(ORGANIZATION_NAME, request.name)
        return organization_to_proto(await self._service.get_organization(current_caller(), organization_id))

    async def UpdateOrganization(self, request: pb.UpdateOrganizationRequest, context: Context) -> pb.Organization:
        """Some fields of an organization changed."""
        wanted = request.organization
        organization_id = parse(ORGANIZATION_NAME, wanted.name, field="organization.name")
        paths = masked(request, ORGANIZATION_FIELDS)
        changes, webhook = organization_changes(wanted, paths), webhook_change(wanted, paths)
        changed = await self._service.update_organization(
            caller_of(request), organization_id, changes, webhook, wanted.etag
        )
        return organization_to_proto(changed)

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Context
    ) -> pb.ListOrganizationsResponse:
        """A page of organizations."""
        asked = self._tokens.read(request)
        page = await self._service.list_organizations(current_caller(), request.filter, request.order_by, asked)
        organizations, token = self._tokens.page(request, page, organization_to_proto)
        return pb.ListOrganizationsResponse(organizations=organizations, next_page_token=token)

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.User:
        """A new user."""
        home = parse(ORGANIZATION_NAME, request.organization, field="organization") if request.organization else None
        return user_to_proto(await self._service.create_user(caller_of(request), new_user(request.user), home))

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.User:
        """One user."""
        return user_to_proto(await self._service.get_user(current_caller(), parse(USER_NAME, request.name)))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        """A page of users."""
        asked = self._tokens.read(request)
        page = await self._service.list_users(current_caller(), request.filter, request.order_by, asked)
        users, token = self._tokens.page(request, page, user_to_proto)
        return pb.ListUsersResponse(users=users, next_page_token=token)

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.User:
        """Some fields of a user changed."""
        user_id = parse(USER_NAME, request.user.name, field="user.name")
        changes = user_changes(request.user, masked(request, USER_FIELDS))
        return user_to_proto(await self._service.update_user(caller_of(request), user_id, changes, request.user.etag))

    async def DisableUser(self, request: pb.DisableUserRequest, context: Context) -> pb.User:
        """A user disabled."""
        return user_to_proto(await self._service.disable_user(caller_of(request), parse(USER_NAME, request.name)))

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Context) -> pb.CreateApiKeyResponse:
        """A new key with its secret."""
        created = await self._keys.create(caller_of(request), new_key(request.api_key))
        return pb.CreateApiKeyResponse(api_key=key_to_proto(created.key), secret=created.secret or "")

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Context) -> pb.ListApiKeysResponse:
        """A page of keys."""
        asked = self._tokens.read(request)
        page = await self._keys.list(current_caller(), request.filter, request.order_by, asked)
        api_keys, token = self._tokens.page(request, page, key_to_proto)
        return pb.ListApiKeysResponse(api_keys=api_keys, next_page_token=token)

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Context) -> pb.ApiKey:
        """A key revoked."""
        return key_to_proto(await self._keys.revoke(caller_of(request), parse(KEY_NAME, request.name)))

    async def GetQuota(self, request: pb.GetQuotaRequest, context: Context) -> pb.Quota:
        """The quota of a user or organization."""
        subject_id, of_organization = parse_quota_name(request.name)
        quota = await self._quotas.get(current_caller(), subject_id, of_organization=of_organization)
        return quota_to_proto(quota, request.name)

    async def SetQuota(self, request: pb.SetQuotaRequest, context: Context) -> pb.Quota:
        """A quota changed."""
        subject_id, of_organization = parse_quota_name(request.quota.name, "quota.name")
        quota = await self._quotas.set(
            caller_of(request),
            subject_id,
            quota_changes(request.quota, masked(request, QUOTA_FIELDS, absent_means_all=True)),
            request.quota.etag,
            of_organization=of_organization,
            validate_only=request.validate_only,
        )
        return quota_to_proto(quota, request.quota.name)

    async def GetQuotaUsage(self, request: pb.GetQuotaUsageRequest, context: Context) -> pb.QuotaUsage:
        """What is used of a quota."""
        subject_id, of_organization = parse_quota_name(request.name)
        usage = await self._quotas.usage(current_caller(), subject_id, of_organization=of_organization)
        return usage_to_proto(usage, request.name)
