"""The background service of expiry: announces what expires soon, tells what has expired, purges what was deleted.

A value is refused from its end on by the database's clock, whether or not this ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials import expiry_store
from stationmaster_server.credentials.expiry_store import Ending, Purged
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.system import system_caller

_log = structlog.get_logger(__name__)
BATCH = 200
ANNOUNCE, EXPIRE, PURGE = "credential.expiry.announce", "credential.expire", "credential.purge"


@dataclass(slots=True)
class Counters:
    """What this process has told of."""

    announced: int = 0
    expired: int = 0
    purged: int = 0


class Expiry:
    """`run` it from time to time on every server: each ending is told of once."""

    def __init__(self, database: Database, audit: AuditLog, *, announce_before: timedelta) -> None:
        self._database = database
        self._audit = audit
        self._before = announce_before
        self.counters = Counters()

    async def run(self) -> None:
        """Tell of everything that is due."""
        while await self._round():
            pass

    async def _round(self) -> bool:
        """A transaction each, so that none holds many rows; whether there may be more."""
        async with self._database.system() as tx:
            soon = await expiry_store.announce(tx, self._before, BATCH)
            over = await expiry_store.expire(tx, BATCH)
            gone = await expiry_store.purge(tx, BATCH)
            entries = [*_endings(ANNOUNCE, soon), *_endings(EXPIRE, over), *_purged(gone)]
            if entries:
                await self._audit.write_many(tx, entries)
        for ending in over:
            _log.warning("a credential has expired", credential=ending.name, organization=str(ending.organization_id))
        self.counters.announced += len(soon)
        self.counters.expired += len(over)
        self.counters.purged += len(gone)
        return bool(entries) and max(len(soon), len(over), len(gone)) >= BATCH


def _endings(action: str, endings: Sequence[Ending]) -> list[tuple[Caller, AuditEntry]]:
    return [
        (
            system_caller(one.organization_id, one.owner_id),
            AuditEntry(
                action, one.name, category=Category.SECURITY, details={"expire_time": one.expires_at.isoformat()}
            ),
        )
        for one in endings
    ]


def _purged(gone: Sequence[Purged]) -> list[tuple[Caller, AuditEntry]]:
    return [
        (
            system_caller(one.organization_id, one.owner_id),
            AuditEntry(PURGE, f"credentials/{one.credential_id}", category=Category.SECURITY),
        )
        for one in gone
    ]
