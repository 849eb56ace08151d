"""Values by name for the rooms above: resolved at the last moment, on behalf of a user, each with its audit event."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from stationmaster_server.credentials.access import Access, Request
from stationmaster_server.credentials.model import unusable
from stationmaster_server.db.model import Tenant
from stationmaster_server.identity.system import system_caller

_REFERENCE = re.compile(r"\{credentials/([a-z][a-z0-9-]{0,62})\}")


class Kind(StrEnum):
    """Where a value goes; what such a place cannot hold is refused before anybody shows it in an error."""

    HEADER = "header"
    ENVIRONMENT = "environment"
    KEY = "key"


_FITS = {
    Kind.HEADER: re.compile(r"[\t\x20-\x7e]+"),
    Kind.ENVIRONMENT: re.compile(r"[^\0]+"),
    Kind.KEY: re.compile(r"[\x21-\x7e]+"),
}
LONGEST_IN_HEADER = 2_000
"""Characters: what is longer is refused here, by name, and not by whoever reads the header."""
_LONGEST = {Kind.HEADER: LONGEST_IN_HEADER, Kind.KEY: LONGEST_IN_HEADER}


def reference(text: str) -> str:
    """A text that names a credential: `credentials/x` alone is `{credentials/x}`."""
    return f"{{{text}}}" if text.startswith("credentials/") else text


@dataclass(frozen=True, slots=True)
class Filled:
    """Texts with secrets in them, and these by themselves: to be masked in whatever comes back."""

    texts: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


class Using:
    """Gets what somebody's agents, MCP servers and tasks name."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def secret(
        self, tenant: Tenant, name: str, kind: Kind, *, purpose: str, used_by: str, agent_id: str = ""
    ) -> str:
        """The secret of `credentials/…`, as this user, or the agent that acts for it, may have it.

        Raises what `Access.access` raises, FailedPrecondition(CREDENTIAL_UNUSABLE) for what fits no such place.
        """
        credential_id = name.removeprefix("credentials/")
        caller = system_caller(tenant.organization_id, tenant.user_id)
        request = Request(credential_id, purpose=purpose, agent_id=agent_id, used_by=used_by)
        accessed = await self._access.access(caller, request)
        if accessed.is_setting:
            raise unusable("NOT_SECRET", f"credentials/{credential_id}", "is a setting, not a secret")
        most = _LONGEST.get(kind)
        if most is not None and len(accessed.secret) > most:
            why = f"has {len(accessed.secret):,} characters; a {kind} takes {most:,} at most"
            raise unusable("VALUE", f"credentials/{credential_id}", why)
        if _FITS[kind].fullmatch(accessed.secret) is None:
            why = f"has characters that cannot stand in a {kind}: perhaps a line break at its end"
            raise unusable("VALUE", f"credentials/{credential_id}", why)
        return accessed.secret

    async def filled(
        self, tenant: Tenant, texts: Mapping[str, str], kind: Kind, *, purpose: str, used_by: str
    ) -> Filled:
        """The texts with the secrets that they name (`Bearer {credentials/x}`). Raises as `secret`."""
        wanted = {found for text in texts.values() for found in _REFERENCE.findall(text)}
        values = {
            credential_id: await self.secret(tenant, credential_id, kind, purpose=purpose, used_by=used_by)
            for credential_id in sorted(wanted)
        }
        filled = {name: _REFERENCE.sub(lambda match: values[match[1]], text) for name, text in texts.items()}
        return Filled(filled, tuple(values.values()))
