"""Identity and audit, built: who calls, what they may, and what is written down about it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import UUID

from stationmaster_server.app.transport import Gate
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.config import JwtIssuerSettings, Settings, SettingsError
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.identity.authentication import Authenticator
from stationmaster_server.identity.bootstrap import ensure_local_administrator
from stationmaster_server.identity.jwks import KeySource
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.identity.tokens import Issuer


async def build_gate(stack: AsyncExitStack, settings: Settings, database: Database, listener: Listener) -> Gate:
    """Start the audit trail and authentication; the first start makes the local administrator."""
    audit = AuditLog(database, sequence=settings.audit.sequence)
    await audit.start()
    stack.push_async_callback(audit.close)
    if settings.identity.local_admin:
        await ensure_local_administrator(database, settings.data_folder, audit)
    issuers, certificates = issuers_of(settings.identity.jwt_issuers), settings.server.tls.client_ca is not None
    authenticator = Authenticator(database, listener, audit, issuers, certificates=certificates)
    await authenticator.start()
    stack.push_async_callback(authenticator.close)
    return Gate(authenticator, Quotas(database, listener, audit), audit)


def issuers_of(settings: Sequence[JwtIssuerSettings]) -> list[Issuer]:
    """Who may vouch for users. Raises SettingsError."""
    return [
        Issuer(
            name=issuer.issuer,
            audience=issuer.audience,
            keys=KeySource(issuer.jwks_url or f"{issuer.issuer.rstrip('/')}/.well-known/openid-configuration"),
            organization_id=_organization(issuer.organization),
            clock_skew=issuer.clock_skew,
        )
        for issuer in settings
    ]


def _organization(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise SettingsError(f"setting identity.jwt_issuers.organization: {text!r} is no UUID") from None
