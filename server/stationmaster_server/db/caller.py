"""Who calls: known to every room and engine, made by the authentication interceptor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from stationmaster_server.db.model import RequestKey, Tenant


class Role(StrEnum):
    """What a user may do in the organization; `identity/model.py` maps each role to scopes."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller of one call; the first argument of every service method."""

    tenant: Tenant
    role: Role
    scopes: frozenset[str]
    key_id: UUID | None
    subject: str
    request_id: str
    peer: str
    method: str
    request_key: RequestKey | None = None
