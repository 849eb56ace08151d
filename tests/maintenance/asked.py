"""Operations of a service, done at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.model import Tenant
from stationmaster_server.maintenance.base import BackgroundService


async def asked(service: BackgroundService[Any], operation: str, tenant: Tenant, ask: str = "one") -> Mapping[str, Any]:
    """What an operation tells; `ask` names who asked: the same one, asking again, is the same operation."""
    (found,) = [one for one in service.operations() if one.name == operation]
    caller = Caller(tenant, Role.OWNER, frozenset(), None, f"users/{tenant.user_id}", ask, "", "")
    return await found.run(caller, found.arguments())
