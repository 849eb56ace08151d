"""Organizations, users, keys, roles and scopes, quotas, and what identity tells the audit trail."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID

from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.model import RequestKey, Tenant

__all__ = ["Caller", "RequestKey", "Role", "Tenant"]

PLATFORM_SCOPE = "organizations.admin"
"""To operate the installation. No role and no wildcard holds it: a key has it by name or not at all."""

_WORK = ("sessions", "agents", "tasks", "prompts", "storage", "mcp", "credentials", "permissions")
_ALL = frozenset({"*"})
_WORKER = frozenset({*(f"{area}.*" for area in _WORK), "identity.read", "identity.write", "audit.write"})
_READER = frozenset({*(f"{area}.read" for area in _WORK), "identity.read"})

ROLE_SCOPES: dict[Role, frozenset[str]] = {
    Role.OWNER: _ALL,
    Role.ADMIN: _ALL,
    Role.MEMBER: _WORKER,
    Role.SERVICE: _WORKER,
    Role.VIEWER: _READER,
}

KNOWN_SCOPES = frozenset(
    {
        PLATFORM_SCOPE,
        "credentials.values.read",
        *(f"{area}.{action}" for area in (*_WORK, "identity", "audit", "maintenance") for action in ("read", "write")),
        "mcp.call",
        "permissions.resolve",
        "quotas.write",
        "tasks.execute",
    }
)
"""Every scope that a method needs, and those of areas that roles name already and methods will."""

_RANKS = {Role.OWNER: 4, Role.ADMIN: 3, Role.MEMBER: 2, Role.SERVICE: 2, Role.VIEWER: 1}


def rank(role: Role) -> int:
    """How much a role may, to compare: nobody grants or changes a role above its own."""
    return _RANKS[role]


def owner_scope(caller: Caller) -> UUID | None:
    """The user whose work the caller may touch: its own; None for owners and admins, who may touch all."""
    return None if caller.role in (Role.OWNER, Role.ADMIN) else caller.tenant.user_id


def allows(scopes: frozenset[str], scope: str) -> bool:
    """Whether scopes hold one that a method needs. The scope `""` needs nothing but an authenticated caller."""
    if scope in scopes or not scope:
        return True
    return scope != PLATFORM_SCOPE and ("*" in scopes or f"{scope.partition('.')[0]}.*" in scopes)


def unknown_scopes(scopes: Iterable[str]) -> list[str]:
    """Those that are no scope and no wildcard of one: nothing would ever be allowed by them."""
    wildcards = {"*", *(f"{scope.partition('.')[0]}.*" for scope in KNOWN_SCOPES - {PLATFORM_SCOPE})}
    return sorted(set(scopes) - KNOWN_SCOPES - wildcards)


def covers(scopes: frozenset[str], wanted: frozenset[str]) -> bool:
    """Whether everything that `wanted` holds is held by `scopes`; either may have wildcards."""
    return not missing(scopes, wanted)


def missing(scopes: frozenset[str], wanted: frozenset[str]) -> frozenset[str]:
    """Those of `wanted` that `scopes` do not hold."""
    return frozenset(scope for scope in wanted if not allows(scopes, scope))


def effective_scopes(role: Role, key_scopes: frozenset[str]) -> frozenset[str]:
    """What a key may do: its own scopes cut down to those of its user's role; none of its own means the role's."""
    role_scopes = ROLE_SCOPES[role]
    if not key_scopes:
        return role_scopes
    narrower = {scope for scope in key_scopes if allows(role_scopes, scope)}
    wider = {scope for scope in role_scopes if allows(key_scopes, scope)}
    platform = {PLATFORM_SCOPE} & key_scopes if role is Role.OWNER else set()
    return frozenset(narrower | wider | platform)


class Effect(StrEnum):
    """What happens when a tool is about to be called."""

    ALLOW = "ALLOW"
    ASK = "ASK"
    DENY = "DENY"


STRICTNESS = {Effect.ALLOW: 0, Effect.ASK: 1, Effect.DENY: 2}


@dataclass(frozen=True, slots=True)
class ToolPolicy:
    """One rule about tools: a name or a pattern with `*`."""

    pattern: str
    effect: Effect

    def matches(self, tool: str) -> bool:
        """Whether the rule is about this tool."""
        return fnmatchcase(tool, self.pattern)


def strictest(policies: tuple[ToolPolicy, ...], tool: str, default: Effect) -> Effect:
    """The strictest effect among the rules that match, or `default` where none does."""
    effects = [policy.effect for policy in policies if policy.matches(tool)]
    return max(effects, key=STRICTNESS.__getitem__) if effects else default


@dataclass(frozen=True, slots=True)
class Organization:
    """The border that no data crosses."""

    id: UUID
    display_name: str
    created_at: datetime
    tool_policies: tuple[ToolPolicy, ...]
    webhook_url: str
    """Who is told of permissions that are asked for; empty: nobody."""
    revision: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of what happens, and what it is signed with. An empty URL: none; no secret: the one there is."""

    url: str = ""
    secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class User:
    """A person or program of an organization."""

    id: UUID
    organization_id: UUID
    display_name: str
    email: str
    role: Role
    external_subject: str
    disabled_at: datetime | None
    revision: int
    created_at: datetime
    updated_at: datetime
    tool_policies: tuple[ToolPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without its secret."""

    id: UUID
    organization_id: UUID
    user_id: UUID
    display_name: str
    prefix: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a user or an organization may use at once, in a clock hour, in a day (UTC). None: no limit."""

    subject_id: UUID
    max_concurrent_sessions: int | None = None
    max_calls_per_hour: int | None = None
    max_cost_micros_per_day: int | None = None
    max_storage_bytes: int | None = None
    max_users: int | None = None
    max_tokens_per_day: int | None = None
    max_tool_calls_per_day: int | None = None
    max_running_time_per_day: timedelta | None = None
    revision: int = 0
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Amounts:
    """What is counted by the day. Cost in millionths of a US dollar."""

    tokens: int = 0
    cost_micros: int = 0
    tool_calls: int = 0
    running_time: timedelta = timedelta(0)

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.tokens + other.tokens,
            self.cost_micros + other.cost_micros,
            self.tool_calls + other.tool_calls,
            self.running_time + other.running_time,
        )

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.tokens - other.tokens,
            self.cost_micros - other.cost_micros,
            self.tool_calls - other.tool_calls,
            self.running_time - other.running_time,
        )

    def at_least(self, other: Amounts) -> Amounts:
        """Of each the larger."""
        return Amounts(
            max(self.tokens, other.tokens),
            max(self.cost_micros, other.cost_micros),
            max(self.tool_calls, other.tool_calls),
            max(self.running_time, other.running_time),
        )


NOTHING = Amounts()


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of a quota is used."""

    subject_id: UUID
    concurrent_sessions: int = 0
    calls_this_hour: int = 0
    users: int = 0
    today: Amounts = NOTHING
    storage_bytes: int = 0


class Method(StrEnum):
    """How a caller was authenticated."""

    API_KEY = "api_key"
    JWT = "jwt"
    MTLS = "mtls"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who was authenticated."""

    tenant: Tenant
    role: Role
    scopes: frozenset[str]
    key_id: UUID | None
    subject: str
    """`api_key:{prefix}`, `jwt:{sub}` or `mtls:{name}`."""

    def caller(self, *, request_id: str, peer: str, method: str, request_key: RequestKey | None = None) -> Caller:
        """The caller of one call."""
        return Caller(
            self.tenant, self.role, self.scopes, self.key_id, self.subject, request_id, peer, method, request_key
        )


def method_of(caller: Caller) -> Method:
    """How a caller was authenticated, by its subject."""
    return Method(caller.subject.partition(":")[0])


class Category(StrEnum):
    """What kind an audit event is of."""

    SECURITY = "security"
    BUSINESS = "business"
    COMPLIANCE = "compliance"
    SYSTEM = "system"


class Outcome(StrEnum):
    """How what an audit event tells of ended."""

    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What is told to the audit trail, besides who did it."""

    action: str
    resource: str
    outcome: Outcome = Outcome.ALLOWED
    category: Category = Category.BUSINESS
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    on_behalf_of: str = ""
