"""JSON Web Tokens of OpenID Connect issuers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError

from stationmaster_server.errors import Reason, Unauthenticated
from stationmaster_server.identity.jwks import KeySource

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Those with a public key. `none` and the shared-secret ones are never accepted."""
_LONGEST_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer whose tokens are accepted.

    `organization_id`: that of all its users; None: the claim `organization_claim` names it.
    """

    name: str
    audience: str
    keys: KeySource
    organization_id: UUID | None = None
    organization_claim: str = "organization"
    clock_skew: timedelta = timedelta(seconds=30)
    algorithms: tuple[str, ...] = ALGORITHMS

    def __post_init__(self) -> None:
        if wrong := sorted(set(self.algorithms) - set(ALGORITHMS)):
            raise ValueError(f"tokens cannot be accepted with the algorithms {', '.join(wrong)}")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says of its bearer."""

    issuer: str
    subject: str
    organization_id: UUID | None


async def verify(token: str, issuers: Mapping[str, Issuer]) -> Claims:
    """The claims of a token of one of the issuers; Unauthenticated: CREDENTIALS_INVALID or CREDENTIALS_EXPIRED."""
    header, payload = _peek(token)
    issuer = issuers.get(str(payload.get("iss")))
    if issuer is None or header.get("alg") not in issuer.algorithms:
        raise _invalid("its issuer or algorithm is not accepted here")
    key = await issuer.keys.find(header.get("kid"))
    if key is None:
        raise _invalid("its issuer has no such key")
    try:
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=list(issuer.algorithms)).claims
        _registry(issuer).validate(claims)
    except ExpiredTokenError:
        raise Unauthenticated(Reason.CREDENTIALS_EXPIRED, "the token has expired") from None
    except (JoseError, ValueError) as error:
        raise _invalid(f"{type(error).__name__}") from None
    return Claims(issuer.name, claims["sub"], _organization(issuer, claims))


def _registry(issuer: Issuer) -> jwt.JWTClaimsRegistry:
    return jwt.JWTClaimsRegistry(
        leeway=int(issuer.clock_skew.total_seconds()),
        iss={"essential": True, "value": issuer.name},
        aud={"essential": True, "value": issuer.audience},
        sub={"essential": True},
        exp={"essential": True},
    )


def _organization(issuer: Issuer, claims: dict[str, Any]) -> UUID | None:
    if issuer.organization_id is not None:
        return issuer.organization_id
    claim = claims.get(issuer.organization_claim)
    if claim is None:
        return None
    try:
        return UUID(str(claim).removeprefix("organizations/"))
    except ValueError:
        raise _invalid(f"its claim {issuer.organization_claim} is no organization") from None


def _peek(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and payload before anything is verified: only to know whose key to ask for."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST_TOKEN:
        raise _invalid("it is neither an API key nor a token")
    try:
        header, payload = (json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid("it cannot be read") from None
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise _invalid("it cannot be read")
    return header, payload


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated(Reason.CREDENTIALS_INVALID, f"the token is not valid: {why}")
