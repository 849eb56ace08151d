"""Who sees a credential, who changes it, and whose names count in its grants."""

from __future__ import annotations

from dataclasses import replace

from stationmaster_server.credentials import store
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import Credential, State, unusable
from stationmaster_server.credentials.store import Viewer
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.requests import known_fingerprint
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import NotFound, require_etag
from stationmaster_server.identity.roles import administers, insufficient, require_scopes

READS_VALUES = frozenset({"credentials.values.read"})


def principals_of(caller: Caller, agent_id: str = "") -> tuple[str, ...]:
    """The names under which a caller, or an agent that acts for it, may have been granted something."""
    names = [f"users/{caller.tenant.user_id}"]
    if caller.key_id is not None:
        names.append(f"apiKeys/{caller.key_id}")
    if agent_id:
        names.append(f"agents/{agent_id}")
    return tuple(names)


def require_naming(caller: Caller, *named: object) -> None:
    """Whoever names a credential gets its value sent somewhere, and so has to have what reading it takes.

    `named`: what may name some; empty, it names none. Raises PermissionDenied(SCOPE_MISSING).
    """
    if any(named):
        require_scopes(caller, READS_VALUES, "name a credential")


def viewer_of(caller: Caller) -> Viewer:
    """A caller as the queries see it."""
    tenant = caller.tenant
    return Viewer(tenant.organization_id, tenant.user_id, principals_of(caller), administers(caller))


async def seen(tx: Transaction, caller: Caller, credential_id: str) -> Credential:
    """A credential that the caller sees. Raises NotFound."""
    return _found(await store.get(tx, viewer_of(caller), credential_id), credential_id)


def manages(caller: Caller, credential: Credential) -> bool:
    """Whether the caller may change the credential and say who else gets it."""
    return credential.owner_id == caller.tenant.user_id or administers(caller)


async def managed(
    tx: Transaction, caller: Caller, credential_id: str, etag: str = "", *, deleted: bool = False
) -> Credential:
    """A credential that the caller changes, locked; `deleted`: one that is deleted, else one that is not.

    Raises NotFound, PermissionDenied, Aborted(ETAG_MISMATCH), FailedPrecondition(CREDENTIAL_UNUSABLE).
    """
    credential = _found(await store.get(tx, viewer_of(caller), credential_id, lock=True), credential_id)
    if not manages(caller, credential):
        raise insufficient(f"only its owner and admins change {credential.name}")
    require_etag(credential.name, credential.etag, etag)
    if (credential.state is State.DELETED) is not deleted:
        why = "is not deleted" if deleted else "is deleted: undelete it first"
        raise unusable("DELETED", credential.name, why)
    return credential


async def with_own_fingerprint(tx: Transaction, keyring: Keyring, caller: Caller) -> Caller:
    """The caller with a request fingerprint that nobody can try secrets against; the first statement of a transaction.

    A repeat may come after the key was rotated: then the fingerprint of the key that was in use counts.
    """
    key = caller.request_key
    if key is None:
        return caller
    fingerprints = keyring.fingerprints(key.fingerprint)
    chosen = fingerprints[0]
    if len(fingerprints) > 1:
        tenant = caller.tenant
        known = await known_fingerprint(tx, tenant, key)
        chosen = known if known is not None and known in fingerprints else chosen
    return replace(caller, request_key=replace(key, fingerprint=chosen))


def _found(credential: Credential | None, credential_id: str) -> Credential:
    if credential is None:
        raise NotFound("Credential", f"credentials/{credential_id}")
    return credential
