"""The system itself as a caller: what nobody asked for by RPC is still told to the audit trail."""

from __future__ import annotations

from uuid import UUID

from stationmaster_server.identity.model import Caller, Role, Tenant


def system_caller(organization_id: UUID, user_id: UUID, *, request_id: str = "") -> Caller:
    """The system acting for a user."""
    tenant = Tenant(organization_id, user_id)
    return Caller(tenant, Role.SERVICE, frozenset(), None, "system", request_id, "", "")
