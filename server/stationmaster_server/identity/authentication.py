"""Who calls: by API key, by token of an OpenID Connect issuer, or by client certificate."""

from __future__ import annotations

import hmac
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.errors import PermissionDenied, Reason, StationmasterError, Unauthenticated
from stationmaster_server.identity import key_store
from stationmaster_server.identity.auditing import AuditWriter
from stationmaster_server.identity.cache import Cache
from stationmaster_server.identity.key_store import KeyRecord, Principal
from stationmaster_server.identity.last_used import LastUsed
from stationmaster_server.identity.model import (
    ROLE_SCOPES,
    AuditEntry,
    Category,
    Identity,
    Method,
    Outcome,
    Role,
    Tenant,
    effective_scopes,
)
from stationmaster_server.identity.secrets import PREFIX_MARK, hash_secret, prefix_of
from stationmaster_server.identity.tokens import Issuer, verify

logger = logging.getLogger(__name__)

KEY_LIFETIME = timedelta(seconds=1)
"""How long a key is believed without asking again: the promise about revoked keys, should a notification be lost."""
_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a verified client certificate says: its names in the order they are tried, and its subject's O."""

    names: tuple[str, ...]
    organization: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came from, for the audit trail of refusals."""

    method: str = ""
    request_id: str = ""
    peer: str = ""


class Authenticator:
    """One for each process. `start` and `close` it: it writes in the background when keys were used.

    Where more than one issuer (client certificates, with `certificates`, count as one) vouches for users, a user's
    external_subject names the issuer too, as `{issuer}|{subject}` or `mtls|{name}`: what one may say of its users
    must not make another's of them.
    """

    def __init__(
        self,
        database: Database,
        listener: Listener,
        audit: AuditWriter,
        issuers: Sequence[Issuer] = (),
        *,
        certificates: bool = False,
    ) -> None:
        self._database = database
        self._audit = audit
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._names_issuers = len(self._issuers) + certificates > 1
        self._keys: Cache[str, _Known] = Cache(KEY_LIFETIME)
        self._subjects: Cache[tuple[str, UUID | None], Principal] = Cache(KEY_LIFETIME)
        self._last_used = LastUsed(database)
        self.refusals: Counter[Reason] = Counter()
        listener.add(key_store.CHANNEL, self._heard)

    async def start(self) -> None:
        """Begin to note when keys are used."""
        self._last_used.start()

    async def close(self) -> None:
        """Write what is still to be noted, and let go of the issuers' connections."""
        await self._last_used.close()
        for issuer in self._issuers.values():
            await issuer.keys.close()

    async def authenticate(
        self, authorization: str | None, certificate: Certificate | None = None, *, origin: Origin | None = None
    ) -> Identity:
        """Who sends this `authorization` metadata, or else this certificate.

        Unauthenticated: CREDENTIALS_MISSING, _INVALID, _EXPIRED, _REVOKED; PermissionDenied: USER_DISABLED. The refusal
        of somebody known is in the audit trail of its organization when raised; that of somebody unknown is logged.
        """
        try:
            return await self._authenticate(authorization, certificate)
        except _Refused as refused:
            self.refusals[refused.error.reason] += 1
            await self._tell(refused, origin or Origin())
            raise refused.error from None

    async def _authenticate(self, authorization: str | None, certificate: Certificate | None) -> Identity:
        if authorization:
            scheme, _, credentials = authorization.partition(" ")
            credentials = credentials.strip()
            if scheme.lower() != "bearer" or not credentials:
                raise _invalid("send the metadata `authorization: Bearer {API key or token}`")
            return await (self._by_key if credentials.startswith(PREFIX_MARK) else self._by_token)(credentials)
        if certificate is not None:
            return await self._by_certificate(certificate)
        raise _Refused(
            Unauthenticated(
                Reason.CREDENTIALS_MISSING,
                "no credentials were sent; send the metadata `authorization: Bearer {API key or token}`",
            )
        )

    async def _by_key(self, secret: str) -> Identity:
        prefix = prefix_of(secret)
        known = await self._keys.get(prefix, self._find_key) if prefix is not None else None
        # Unknown keys are compared as well: all refusals take the same way.
        matches = hmac.compare_digest(hash_secret(secret), known.key.secret_hash if known else _NO_HASH)
        if known is None or not matches:
            raise _invalid("the API key is not valid")
        key, identity = known.key, known.identity
        if key.revoked:
            raise _Refused(Unauthenticated(Reason.CREDENTIALS_REVOKED, "the API key has been revoked"), identity)
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            raise _Refused(Unauthenticated(Reason.CREDENTIALS_EXPIRED, "the API key has expired"), identity)
        _check_enabled(key.user, identity)
        self._last_used.touch(identity.tenant.organization_id, key.id, key.last_used_at)
        return identity

    async def _by_token(self, token: str) -> Identity:
        try:
            claims = await verify(token, self._issuers)
        except Unauthenticated as error:
            raise _Refused(error) from error
        return await self._by_subject(Method.JWT, self._bound(claims.issuer, claims.subject), claims.organization_id)

    async def _by_certificate(self, certificate: Certificate) -> Identity:
        organization_id = _uuid(certificate.organization)
        for name in certificate.names:
            subject = self._bound(Method.MTLS.value, name)
            if await self._subjects.get((subject, organization_id), self._find_subject) is not None:
                return await self._by_subject(Method.MTLS, subject, organization_id)
        raise _invalid("the client certificate names no user; set its SAN or CN as a user's external_subject")

    def _bound(self, issuer: str, subject: str) -> str:
        """The external_subject of whom an issuer calls `subject`."""
        return f"{issuer}|{subject}" if self._names_issuers else subject

    async def _by_subject(self, method: Method, subject: str, organization_id: UUID | None) -> Identity:
        user = await self._subjects.get((subject, organization_id), self._find_subject)
        if user is None:
            raise _invalid(f"no user has the external_subject {subject!r}")
        identity = _identity(user, ROLE_SCOPES[user.role], f"{method}:{subject}", None)
        _check_enabled(user, identity)
        return identity

    async def _find_key(self, prefix: str) -> _Known | None:
        async with self._database.system(autocommit=True) as tx:
            key = await key_store.find_key(tx, prefix)
        if key is None:
            return None
        scopes = effective_scopes(key.user.role, key.scopes)
        return _Known(key, _identity(key.user, scopes, f"{Method.API_KEY}:{prefix}", key.id))

    async def _find_subject(self, key: tuple[str, UUID | None]) -> Principal | None:
        async with self._database.system(autocommit=True) as tx:
            return await key_store.find_subject(tx, *key)

    async def _tell(self, refused: _Refused, origin: Origin) -> None:
        reason, identity = refused.error.reason, refused.identity
        if identity is None:
            logger.warning("refused a caller: %s (peer %s, request %s)", reason, origin.peer, origin.request_id)
            return
        caller = identity.caller(request_id=origin.request_id, peer=origin.peer, method=origin.method)
        resource = f"apiKeys/{identity.key_id}" if identity.key_id else f"users/{identity.tenant.user_id}"
        entry = AuditEntry("authenticate", resource, Outcome.DENIED, Category.SECURITY, reason.value)
        await self._audit.write_refusal(caller, entry)

    def forget(self) -> None:
        """Ask the database about every caller anew."""
        self._keys.forget()
        self._subjects.forget()

    def _heard(self, payload: str | None) -> None:
        # Changes of users and keys are rare: to forget all costs each caller one query.
        if payload is None or not payload.startswith("quota:"):
            self.forget()


@dataclass(frozen=True, slots=True)
class _Known:
    """A key, and who it is."""

    key: KeyRecord
    identity: Identity


class _Refused(Exception):
    """A refusal on its way out, with whom it was about, if that is known."""

    def __init__(self, error: StationmasterError, identity: Identity | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.identity = identity


def _invalid(message: str) -> _Refused:
    return _Refused(Unauthenticated(Reason.CREDENTIALS_INVALID, message))


def _check_enabled(user: Principal, identity: Identity) -> None:
    if user.disabled:
        raise _Refused(PermissionDenied(Reason.USER_DISABLED, "the user has been disabled"), identity)


def _identity(user: Principal, scopes: frozenset[str], subject: str, key_id: UUID | None) -> Identity:
    return Identity(Tenant(user.organization_id, user.user_id), Role(user.role), scopes, key_id, subject)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
