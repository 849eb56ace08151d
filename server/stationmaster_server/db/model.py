"""Whom a transaction is for, and which request it answers. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Tenant:
    """The organization and the user that a tenant transaction acts for; row-level security sees both."""

    organization_id: UUID
    user_id: UUID


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A mutation's request id (contract rule 7): `fingerprint` is the SHA-256 of the request without its id."""

    request_id: UUID
    method: str
    fingerprint: bytes
