"""Who may do what to whom: the rules about roles, in one place."""

from __future__ import annotations

from uuid import UUID

from stationmaster_server.errors import PermissionDenied, Reason
from stationmaster_server.identity.model import (
    PLATFORM_SCOPE,
    ROLE_SCOPES,
    Caller,
    Role,
    effective_scopes,
    missing,
    rank,
)


def operates(caller: Caller) -> bool:
    """Whether the caller operates the installation, and so may act in every organization."""
    return PLATFORM_SCOPE in caller.scopes


def require_operator(caller: Caller, what: str) -> None:
    """Refuse callers that do not operate the installation."""
    if not operates(caller):
        raise insufficient(f"only operators of the installation {what}: API keys with the scope {PLATFORM_SCOPE}")


def administers(caller: Caller) -> bool:
    """Whether the caller may manage others of its organization."""
    return operates(caller) or rank(caller.role) >= rank(Role.ADMIN)


def require_administrator(caller: Caller, what: str) -> None:
    """Refuse callers that do not manage others."""
    if not administers(caller):
        raise insufficient(f"to {what} needs the role ADMIN or OWNER; yours is {caller.role.name}")


def require_above(caller: Caller, role: Role, what: str) -> None:
    """Refuse what would reach a role above the caller's own, or more than its key may do."""
    if operates(caller):
        return
    if rank(role) > rank(caller.role):
        raise insufficient(f"to {what} of the role {role.name} needs that role at least; yours is {caller.role.name}")
    require_scopes(caller, ROLE_SCOPES[role], what)


def require_scopes(caller: Caller, wanted: frozenset[str], what: str) -> None:
    """Refuse to hand on what the caller does not have."""
    lacking = sorted(missing(caller.scopes, wanted))
    if lacking:
        raise PermissionDenied(
            Reason.SCOPE_MISSING,
            f"to {what} needs the scopes that it would give; yours lack {', '.join(lacking)}",
            metadata={"scope": lacking[0]},
        )


def require_key(caller: Caller, role: Role, wanted: frozenset[str]) -> None:
    """Refuse a key with these scopes, for a user of that role, that could do more than the caller."""
    if not operates(caller) and rank(role) > rank(caller.role):
        raise insufficient(f"a key for a user of the role {role.name} needs that role; yours is {caller.role.name}")
    given = effective_scopes(role, wanted) | (wanted & {PLATFORM_SCOPE})
    require_scopes(caller, given, "create such a key")


def is_self(caller: Caller, user_id: UUID) -> bool:
    """Whether the caller is that user."""
    return caller.tenant.user_id == user_id


def insufficient(message: str) -> PermissionDenied:
    """The refusal of what the caller's role may not do."""
    return PermissionDenied(Reason.ROLE_INSUFFICIENT, message)
