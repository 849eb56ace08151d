"""Refuses a method that is outside the caller's scopes, before anything is read, and audits what services deny."""

from __future__ import annotations

from collections.abc import Awaitable

from stationmaster_server.errors import PermissionDenied, Reason, StationmasterError
from stationmaster_server.identity.model import ROLE_SCOPES, Role, allows
from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.interceptors.base import Before, Failed, Interceptor
from stationmaster_server.rpc.interceptors.refusals import Refusals
from stationmaster_server.rpc.method import Method


class Scopes(Interceptor):
    """Compares the caller's scopes with the `(stationmaster.v1.scope)` of the method."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals

    def before(self, method: Method) -> Before | None:
        """Return the comparison; None for a method that any caller may call."""
        needed = method.scope
        if not needed or method.open:
            return None

        def check(call: Call) -> Awaitable[None] | None:
            if call.caller is not None and allows(call.caller.scopes, needed):
                return None
            text = f"{method.name} needs the scope {needed}, which {_lacking(call, needed)}"
            error = PermissionDenied(Reason.SCOPE_MISSING, text, metadata={"scope": needed})
            return self._refusals.refuse(call, error, scope=needed)

        return check

    def failed(self, method: Method) -> Failed | None:
        """Return what tells the trail of a denial by the service, for example because of the caller's role."""
        return None if method.open else self._tell

    def _tell(self, call: Call, error: StationmasterError) -> Awaitable[None] | None:
        if call.audited or not isinstance(error, PermissionDenied) or error.audited:
            return None
        return self._refusals.refuse(call, error)


def _lacking(call: Call, needed: str) -> str:
    if call.caller is None or allows(ROLE_SCOPES[call.caller.role], needed):
        return "this key lacks: ask for one that has it"
    roles = ", ".join(role.name for role in Role if allows(ROLE_SCOPES[role], needed))
    whose = f"the role {call.caller.role.name} does not have"
    return f"{whose}; these do: {roles}" if roles else f"{whose}: it is for operators of the installation"
