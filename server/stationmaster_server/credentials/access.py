"""Handing out values: whether, to whom, and never without an audit event that is committed first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Never

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials.access_store import Found, Wanted
from stationmaster_server.credentials.envelope import Place
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import Accessed, Label, Source, VersionState, unusable
from stationmaster_server.credentials.reading import Reader
from stationmaster_server.credentials.rights import READS_VALUES, principals_of
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import NotFound, PermissionDenied, Reason, StationmasterError
from stationmaster_server.identity.model import ROLE_SCOPES, AuditEntry, Category, Outcome, missing
from stationmaster_server.identity.roles import administers

ACTION = "credential.access"


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted: a version by its number, or (0) by its label.

    `agent_id`: the agent that acts for the caller; `used_by`: the name of what the server uses the value for.
    """

    credential_id: str
    version: int = 0
    label: Label = Label.CURRENT
    purpose: str = ""
    agent_id: str = ""
    used_by: str = ""


class Access:
    """`variables`: those of the server's environment that may be handed out where a credential names them."""

    def __init__(self, database: Database, audit: AuditLog, keyring: Keyring, variables: Mapping[str, str]) -> None:
        self._reader = Reader(database)
        self._audit = audit
        self._keyring = keyring
        self._variables = variables

    async def access(self, caller: Caller, request: Request) -> Accessed:
        """The value.

        Raises NotFound, PermissionDenied(ACCESS_NOT_GRANTED; USER_DISABLED: for what the server itself uses, whose user
        may not read values any more), FailedPrecondition(CREDENTIAL_EXPIRED, CREDENTIAL_UNUSABLE, CREDENTIAL_DAMAGED),
        Unavailable: the key or the database is away, also when only the audit event cannot be written.
        """
        wanted = Wanted(
            request.credential_id,
            request.version,
            request.label,
            request.purpose,
            principals_of(caller, request.agent_id),
            caller.tenant.user_id,
        )
        found = await self._reader.find(caller.tenant, wanted)
        if found is None:
            await self._refuse(caller, request, NotFound("Credential", f"credentials/{request.credential_id}"))
        refusal = _refusal(caller, wanted, found, self._variables)
        if refusal is None and request.used_by:
            refusal = _disabled(caller, found)
        if refusal is not None:
            hidden = isinstance(refusal, NotFound) and refusal.resource_type == "Credential"
            told = Reason.ACCESS_NOT_GRANTED if hidden else None  # the caller does not learn that it is there
            await self._refuse(caller, request, refusal, told=told)
        try:
            accessed = await self._opened(caller, request, found)
        except StationmasterError as error:
            await self._refuse(caller, request, error, Outcome.FAILED)
        await self._tell(caller, request, Outcome.ALLOWED, "", version=accessed.version)
        return accessed

    async def _opened(self, caller: Caller, request: Request, found: Found) -> Accessed:
        answer = Accessed(
            request.credential_id,
            Source.VERSION,
            found.version,
            "",
            None,
            is_setting=not found.encrypted,
            expires_at=found.expires_at,
        )
        if found.version is None:
            variable = self._variables[found.environment_variable]
            if found.encrypted:
                return replace(answer, source=Source.ENVIRONMENT, secret=variable)
            return replace(answer, source=Source.ENVIRONMENT, setting=variable)
        if not found.encrypted:
            return replace(answer, setting=found.plain)
        name = f"credentials/{request.credential_id}/versions/{found.version}"
        if found.sealed is None:
            raise unusable("DAMAGED", name, "has lost its value: add a new version", Reason.CREDENTIAL_DAMAGED)
        place = Place(caller.tenant.organization_id, found.uid, found.version)
        secret = await self._keyring.open(place, found.sealed, name)
        return replace(answer, secret=secret.decode())

    async def _refuse(
        self,
        caller: Caller,
        request: Request,
        error: StationmasterError,
        outcome: Outcome = Outcome.DENIED,
        *,
        told: Reason | None = None,
    ) -> Never:
        await self._tell(caller, request, outcome, (told or error.reason).value)
        if isinstance(error, PermissionDenied):
            error.audited = True
        raise error

    async def _tell(
        self, caller: Caller, request: Request, outcome: Outcome, reason: str, *, version: int | None = None
    ) -> None:
        details: dict[str, Any] = {"purpose": request.purpose}
        if version is not None or request.version:
            details["version"] = version or request.version
        if request.label is not Label.CURRENT:
            details["label"] = request.label.value.lower()
        if request.agent_id:
            details["agent"] = f"agents/{request.agent_id}"
        if request.used_by:
            details["used_by"] = request.used_by
        name = f"credentials/{request.credential_id}"
        await self._audit.write_alone(caller, AuditEntry(ACTION, name, outcome, Category.SECURITY, reason, details))


def _disabled(caller: Caller, found: Found) -> PermissionDenied | None:
    """What the server uses a value for was named some time ago: its user may have lost the right to it since."""
    name = f"users/{caller.tenant.user_id}"
    if found.role is None:
        return PermissionDenied(Reason.USER_DISABLED, f"{name} is disabled: no credential is used for it")
    if missing(ROLE_SCOPES[found.role], READS_VALUES):
        why = f"the role {found.role.name} of {name} may not read values: no credential is used for it"
        return PermissionDenied(Reason.USER_DISABLED, why)
    return None


def _refusal(caller: Caller, wanted: Wanted, found: Found, variables: Mapping[str, str]) -> StationmasterError | None:
    """Why the value is not handed out; None: it is."""
    name = f"credentials/{wanted.credential_id}"
    if found.owner_id != caller.tenant.user_id and not found.fits:
        if not found.granted and not administers(caller):
            return NotFound("Credential", name)
        return _not_granted(name, wanted.purpose, granted=found.granted)
    if found.deleted:
        return unusable("DELETED", name, "is deleted")
    if found.expired:
        return unusable("EXPIRED", name, "has expired", Reason.CREDENTIAL_EXPIRED)
    return _unusable_version(name, wanted, found, variables)


def _unusable_version(
    name: str, wanted: Wanted, found: Found, variables: Mapping[str, str]
) -> StationmasterError | None:
    if found.version is None:
        falls_back = (
            wanted.label is Label.CURRENT and not found.has_versions and found.environment_variable in variables
        )
        label = wanted.label.lower()
        return None if falls_back else unusable("NO_VERSION", name, f"has no {label} version")
    name = f"{name}/versions/{found.version}"
    if found.state is None:
        return NotFound("CredentialVersion", name)
    if found.state is not VersionState.ENABLED:
        return unusable("VERSION_STATE", name, f"is {found.state.lower()}")
    if found.version_expired:
        return unusable("EXPIRED", name, "has expired", Reason.CREDENTIAL_EXPIRED)
    if found.grace_over:
        return unusable("EXPIRED", name, "was replaced, and its grace is over", Reason.CREDENTIAL_EXPIRED)
    return None


def _not_granted(name: str, purpose: str, *, granted: bool) -> PermissionDenied:
    what = f"the purpose {purpose!r}" if purpose else "an access without a purpose"
    why = f"your grants of {name} do not allow {what}" if granted else f"nobody granted you the value of {name}"
    return PermissionDenied(Reason.ACCESS_NOT_GRANTED, f"{why}: its owner can, with a grant")
