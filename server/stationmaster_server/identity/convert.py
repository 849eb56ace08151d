"""Organizations, users, keys and quotas: messages to model and back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from stationmaster.v1 import agent_pb2
from stationmaster.v1 import identity_pb2 as pb

from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.identity.keys import NewKey
from stationmaster_server.identity.model import (
    ApiKey,
    Caller,
    Effect,
    Organization,
    Quota,
    Role,
    ToolPolicy,
    Usage,
    User,
    Webhook,
    method_of,
)
from stationmaster_server.identity.service import NewUser, WhoIAm
from stationmaster_server.resilience.webhooks import read_secret
from stationmaster_server.wire.fields import duration, moment, span, timestamp
from stationmaster_server.wire.names import parse

ORGANIZATION_NAME = "organizations/{organization}"
USER_NAME = "users/{user}"
KEY_NAME = "apiKeys/{api_key}"

_ROLES = {
    pb.ROLE_OWNER: Role.OWNER,
    pb.ROLE_ADMIN: Role.ADMIN,
    pb.ROLE_MEMBER: Role.MEMBER,
    pb.ROLE_VIEWER: Role.VIEWER,
    pb.ROLE_SERVICE: Role.SERVICE,
}
_ROLE_NUMBERS = {role: number for number, role in _ROLES.items()}

_EFFECTS = {
    agent_pb2.TOOL_EFFECT_UNSPECIFIED: Effect.ASK,
    agent_pb2.TOOL_EFFECT_ALLOW: Effect.ALLOW,
    agent_pb2.TOOL_EFFECT_ASK: Effect.ASK,
    agent_pb2.TOOL_EFFECT_DENY: Effect.DENY,
}
# The last number that stands for a value wins: never the unspecified one.
_EFFECT_NUMBERS = {effect: number for number, effect in _EFFECTS.items()}

ORGANIZATION_FIELDS = frozenset({"display_name", "tool_policies", "permission_webhook"})
USER_FIELDS = frozenset({"display_name", "email", "role", "external_subject", "tool_policies"})
QUOTA_FIELDS = frozenset(
    {
        "max_concurrent_sessions",
        "max_calls_per_hour",
        "max_cost_micros_per_day",
        "max_storage_bytes",
        "max_users",
        "max_tokens_per_day",
        "max_tool_calls_per_day",
        "max_running_time_per_day",
    }
)


def organization_to_proto(organization: Organization) -> pb.Organization:
    """An organization as its message."""
    return pb.Organization(
        name=f"organizations/{organization.id}",
        display_name=organization.display_name,
        create_time=timestamp(organization.created_at),
        tool_policies=policies_to_proto(organization.tool_policies),
        permission_webhook=pb.PermissionWebhook(url=organization.webhook_url) if organization.webhook_url else None,
        etag=str(organization.revision),
        update_time=timestamp(organization.updated_at),
    )


def organization_changes(message: pb.Organization, paths: set[str]) -> dict[str, Any]:
    """The new values of the fields that change, without the webhook."""
    changes: dict[str, Any] = {}
    if "display_name" in paths:
        if not message.display_name:
            raise InvalidArgument.field("organization.display_name", "must not be empty")
        changes["display_name"] = message.display_name
    if "tool_policies" in paths:
        changes["tool_policies"] = policies_from_proto(message.tool_policies)
    return changes


def webhook_change(message: pb.Organization, paths: set[str]) -> Webhook | None:
    """The new webhook, which may be none (an empty one); None when it does not change."""
    if "permission_webhook" not in paths:
        return None
    text = message.permission_webhook.secret
    return Webhook(message.permission_webhook.url, _secret(text) if text else None)


def _secret(text: str) -> bytes:
    try:
        return read_secret(text)
    except ValueError as error:
        raise InvalidArgument.field("organization.permission_webhook.secret", str(error)) from None


def policies_to_proto(policies: Iterable[ToolPolicy]) -> list[agent_pb2.ToolPolicy]:
    """Rules about tools as messages."""
    return [agent_pb2.ToolPolicy(pattern=policy.pattern, effect=_EFFECT_NUMBERS[policy.effect]) for policy in policies]


def policies_from_proto(messages: Iterable[agent_pb2.ToolPolicy]) -> tuple[ToolPolicy, ...]:
    """The rules in messages."""
    return tuple(ToolPolicy(message.pattern, _EFFECTS[message.effect]) for message in messages)


def user_to_proto(user: User) -> pb.User:
    """A user as its message."""
    return pb.User(
        name=f"users/{user.id}",
        organization=f"organizations/{user.organization_id}",
        display_name=user.display_name,
        email=user.email,
        role=_ROLE_NUMBERS[user.role],
        disabled=user.disabled_at is not None,
        external_subject=user.external_subject,
        etag=str(user.revision),
        create_time=timestamp(user.created_at),
        update_time=timestamp(user.updated_at),
        tool_policies=policies_to_proto(user.tool_policies),
    )


def new_user(message: pb.User) -> NewUser:
    """The user that a message asks for."""
    return NewUser(message.display_name, role_of(message), message.email, message.external_subject)


def user_changes(message: pb.User, paths: set[str]) -> dict[str, Any]:
    """The new values of the fields that change."""
    if "display_name" in paths and not message.display_name:
        raise InvalidArgument.field("user.display_name", "must not be empty")
    plain = {path: getattr(message, path) for path in paths - {"role", "tool_policies"}}
    if "role" in paths:
        plain["role"] = role_of(message)
    if "tool_policies" in paths:
        plain["tool_policies"] = policies_from_proto(message.tool_policies)
    return plain


def role_of(message: pb.User) -> Role:
    """The role in a message."""
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidArgument.field("user.role", "must be one of " + ", ".join(f"ROLE_{role.name}" for role in Role))
    return role


def key_to_proto(key: ApiKey) -> pb.ApiKey:
    """A key as its message."""
    return pb.ApiKey(
        name=f"apiKeys/{key.id}",
        user=f"users/{key.user_id}",
        display_name=key.display_name,
        scopes=key.scopes,
        expire_time=timestamp(key.expires_at),
        prefix=f"sm_{key.prefix}",
        revoked=key.revoked_at is not None,
        last_used_time=timestamp(key.last_used_at),
        create_time=timestamp(key.created_at),
    )


def new_key(message: pb.ApiKey) -> NewKey:
    """The key that a message asks for."""
    user_id = parse(USER_NAME, message.user, field="api_key.user") if message.user else None
    return NewKey(user_id, message.display_name, tuple(message.scopes), moment(message, "expire_time"))


def who_to_proto(caller: Caller, who: WhoIAm) -> pb.WhoAmIResponse:
    """A caller as it sees itself."""
    return pb.WhoAmIResponse(
        user=user_to_proto(who.user),
        organization=organization_to_proto(who.organization),
        api_key=None if who.api_key is None else key_to_proto(who.api_key),
        scopes=sorted(caller.scopes),
        method=method_of(caller).value,
    )


def parse_quota_name(name: str, field: str = "name") -> tuple[UUID, bool]:
    """Whom a quota is for, and whether that is an organization."""
    of_organization = name.startswith("organizations/")
    if not of_organization and not name.startswith("users/"):
        raise InvalidArgument.field(
            field, "must have the form users/{user}/quota or organizations/{organization}/quota", Reason.INVALID_NAME
        )
    pattern = "organizations/{organization}/quota" if of_organization else "users/{user}/quota"
    return parse(pattern, name, field=field), of_organization


def quota_to_proto(quota: Quota, name: str) -> pb.Quota:
    """A quota as its message."""
    return pb.Quota(
        name=name,
        max_concurrent_sessions=quota.max_concurrent_sessions,
        max_calls_per_hour=quota.max_calls_per_hour,
        max_cost_micros_per_day=quota.max_cost_micros_per_day,
        max_storage_bytes=quota.max_storage_bytes,
        max_users=quota.max_users,
        max_tokens_per_day=quota.max_tokens_per_day,
        max_tool_calls_per_day=quota.max_tool_calls_per_day,
        max_running_time_per_day=duration(quota.max_running_time_per_day),
        etag=str(quota.revision),
        update_time=timestamp(quota.updated_at),
    )


def quota_changes(message: pb.Quota, paths: set[str]) -> dict[str, int | timedelta | None]:
    """The new limits of the fields that change; None where the field is absent."""
    present = {field.name: value for field, value in message.ListFields()}
    present["max_running_time_per_day"] = span(message, "max_running_time_per_day")
    return {path: present.get(path) for path in paths}


def usage_to_proto(usage: Usage, name: str) -> pb.QuotaUsage:
    """What is used, as its message."""
    return pb.QuotaUsage(
        name=name,
        concurrent_sessions=usage.concurrent_sessions,
        calls_this_hour=usage.calls_this_hour,
        cost_micros_today=usage.today.cost_micros,
        storage_bytes=usage.storage_bytes,
        users=usage.users,
        tokens_today=usage.today.tokens,
        tool_calls_today=usage.today.tool_calls,
        running_time_today=duration(usage.today.running_time),
    )
