"""Making credentials of environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials import store, values, version_store
from stationmaster_server.credentials.envelope import Place
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import Credential, Labels, OnExisting, Value
from stationmaster_server.credentials.rights import managed, viewer_of, with_own_fingerprint
from stationmaster_server.credentials.service import Credentials
from stationmaster_server.credentials.versions import Versions
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists, InvalidArgument, Reason, Unavailable
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.roles import require_operator

_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
CATEGORY = "environment"


@dataclass(frozen=True, slots=True)
class Import:
    """What is to be imported; without `variables` the server's own."""

    prefix: str
    variables: Mapping[str, str] = field(repr=False)
    strip_prefix: bool = False
    category: str = ""
    on_existing: OnExisting = OnExisting.SKIP


@dataclass(frozen=True, slots=True)
class Imported:
    """What was made or got a new version, and the names of what was left as it is."""

    credentials: tuple[Credential, ...]
    skipped: tuple[str, ...]


class Importing:
    """`variables`: those of the server's environment that may be imported."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        keyring: Keyring,
        credentials: Credentials,
        versions: Versions,
        variables: Mapping[str, str],
    ) -> None:
        self._database = database
        self._audit = audit
        self._keyring = keyring
        self._credentials = credentials
        self._versions = versions
        self._variables = variables

    async def run(self, caller: Caller, wanted: Import, *, validate_only: bool = False) -> Imported:
        """Import all or nothing.

        Raises InvalidArgument, AlreadyExists, PermissionDenied, FailedPrecondition(CREDENTIAL_UNUSABLE,
        CREDENTIAL_DAMAGED), ResourceExhausted(LIMIT_REACHED), Unavailable(ENCRYPTION_KEY_UNAVAILABLE).
        """
        found = self._found(caller, wanted)
        self._keyring.require()
        run = self._try if validate_only else self._run
        try:
            return await run(caller, found, wanted)
        except Unavailable as error:
            # Another server may have begun to use another key: it is looked for while no transaction is open.
            if error.reason is not Reason.ENCRYPTION_KEY_UNAVAILABLE or await self._keyring.refresh():
                raise
        return await run(caller, found, wanted)

    async def _try(self, caller: Caller, found: Mapping[str, str], wanted: Import) -> Imported:
        async with self._database.tenant(caller.tenant) as tx:
            tx.audited = True  # nothing is changed
            return await self._import(tx, caller, found, wanted, dry=True)

    async def _run(self, caller: Caller, found: Mapping[str, str], wanted: Import) -> Imported:
        key_id = await self._keyring.reserve(len(found))
        async with self._database.tenant(caller.tenant) as tx:
            caller = await with_own_fingerprint(tx, self._keyring, caller)
            again = await recall(tx, caller.tenant, caller.request_key, Imported)
            if again is not None:
                self._keyring.give_back(key_id, len(found))
                return again
            imported = await self._import(tx, caller, found, wanted, dry=False)
            await self._audit.write_many(tx, [(caller, entry) for entry in _told(wanted, imported)])
            await remember(tx, caller.tenant, caller.request_key, imported)
        self._keyring.give_back(key_id, len(found) - len(imported.credentials))
        return imported

    def _found(self, caller: Caller, wanted: Import) -> dict[str, str]:
        """The values by the ids of their credentials."""
        if not wanted.variables:
            require_operator(caller, "import the server's own environment")
        source = wanted.variables or self._variables
        if not wanted.variables and not wanted.prefix:
            raise InvalidArgument.field("prefix", "is required to import the server's own environment")
        values_of: dict[str, str] = {}
        for name, value in sorted(source.items()):
            if not name.startswith(wanted.prefix) or not value:
                continue
            kept = name[len(wanted.prefix) :] if wanted.strip_prefix else name
            credential_id = kept.lower().strip("_").replace("_", "-")
            if not _ID.fullmatch(credential_id):
                raise InvalidArgument.field("variables", f"no id of a credential can be made of the name {name!r}")
            if credential_id in values_of:
                raise InvalidArgument.field("variables", f"two of the names become credentials/{credential_id}")
            values_of[credential_id] = value
        if not values_of:
            where = "the request" if wanted.variables else "what the server's settings allow (credentials.environment)"
            raise InvalidArgument.field("prefix", f"no variable of {where} begins with it and has a value")
        return values_of

    async def _import(
        self, tx: Transaction, caller: Caller, found: Mapping[str, str], wanted: Import, *, dry: bool
    ) -> Imported:
        """`dry`: tell what would be made, and write nothing."""
        made: list[Credential] = []
        skipped: list[str] = []
        for credential_id, value in found.items():
            existing = await store.get(tx, replace(viewer_of(caller), all=True), credential_id)
            if existing is None:
                new = _new(caller, credential_id, wanted)
                made.append(new if dry else await self._credentials.insert(tx, caller, new, Value(value)))
                continue
            if wanted.on_existing is OnExisting.FAIL:
                raise AlreadyExists("Credential", existing.name)
            changed = None
            if wanted.on_existing is OnExisting.ADD_VERSION:
                changed = await self._replace(tx, caller, credential_id, Value(value), dry=dry)
            if changed is None:
                skipped.append(existing.name)
            else:
                made.append(changed)
        return Imported(tuple(made), tuple(skipped))

    async def _replace(
        self, tx: Transaction, caller: Caller, credential_id: str, value: Value, *, dry: bool
    ) -> Credential | None:
        """The credential with the value as its current version; None when it has that already."""
        credential = await managed(tx, caller, credential_id)
        values.check_value(value, encrypted=credential.encrypted)
        if await self._has(tx, caller, credential, value):
            return None
        return credential if dry else await self._versions.replace(tx, caller, credential, value)

    async def _has(self, tx: Transaction, caller: Caller, credential: Credential, value: Value) -> bool:
        """Whether the value is the credential's current one."""
        organization_id, current = caller.tenant.organization_id, credential.labels.current
        if current is None:
            return False
        sealed = await version_store.current_content(tx, organization_id, credential.uid, current)
        if sealed is None:
            return False
        place, name = Place(organization_id, credential.uid, current), f"{credential.name}/versions/{current}"
        return self._keyring.open_now(place, sealed, name) == value.secret.encode()


def _new(caller: Caller, credential_id: str, wanted: Import) -> Credential:
    now = datetime.now(UTC)
    return Credential(
        credential_id,
        new_id(),
        caller.tenant.user_id,
        category=wanted.category or CATEGORY,
        labels=Labels(),
        etag=new_id().hex,
        created_at=now,
        updated_at=now,
    )


def _told(wanted: Import, imported: Imported) -> list[AuditEntry]:
    """An event of the whole, and one of each credential that it changed: a list in the first would be cut."""
    details = {
        "prefix": wanted.prefix,
        "from_server": not wanted.variables,
        "imported": len(imported.credentials),
        "skipped": len(imported.skipped),
    }
    of = [("credentials", details)]
    of += [(made.name, {"version": made.labels.current or 0}) for made in imported.credentials]
    return [AuditEntry("credential.import", name, category=Category.SECURITY, details=told) for name, told in of]
