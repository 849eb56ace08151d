"""Which key to change to: one that is proven, and that every living server has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import RotationState, StoredKey, unusable
from stationmaster_server.credentials.providers.base import KeysUnreadable, NewKey
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import Reason
from stationmaster_server.identity.model import AuditEntry, Category

NAME = "keyStatus"
RETIRED = "was retired meanwhile: take another id"
_PATIENCE_SECONDS = 6.0
"""Servers tell every two seconds which keys they have."""
_LOOK_SECONDS = 0.2

Lacking = Callable[[str], Awaitable[Sequence[str]]]


class Choice:
    """`lacking`: the names of other living servers that lack a key."""

    def __init__(self, database: Database, audit: AuditLog, keyring: Keyring, lacking: Lacking) -> None:
        self._database = database
        self._audit = audit
        self._keyring = keyring
        self._lacking = lacking

    async def wanted(self, tx: Transaction, stored: Sequence[StoredKey]) -> str:
        """The key that is meant when none is named: of a rotation that was stopped or refused, else the settings'."""
        running = await key_store.rotation(tx)
        if running is not None and running.state is RotationState.STOPPED:
            return running.target_key_id
        if self._keyring.configured not in ("", self._keyring.primary):
            return self._keyring.configured
        since = next((key.created_at for key in stored if key.is_primary), None)
        unused = [key for key in stored if not key.wraps and key.key_id in self._keyring.given]
        newest = max(unused, key=lambda key: key.created_at, default=None)
        return newest.key_id if newest is not None and since is not None and newest.created_at > since else ""

    async def target(self, caller: Caller, wanted: str, known: Collection[str], *, new: bool) -> str:
        """The id of the key to change to, which the database knows then, and every living server has.

        `new`: one of the id that is wanted may be made. Raises FailedPrecondition(ROTATION_NOT_READY).
        """
        target = await self._here(caller, wanted, known, new=new)
        await self._everywhere(target)
        return target

    async def _here(self, caller: Caller, wanted: str, known: Collection[str], *, new: bool) -> str:
        if wanted in known:
            if wanted not in self._keyring.given:
                raise unusable("KEY", wanted, "is not on this server: configure it first", Reason.ROTATION_NOT_READY)
            return wanted
        try:
            made = await self._keyring.make(wanted, known, new=new)
        except KeysUnreadable as error:
            raise unusable("KEY", wanted or NAME, str(error), Reason.ROTATION_NOT_READY) from None
        if made is None:
            why = self._unknown() if wanted else "has no other key to change to: configure one first"
            raise unusable("KEY", wanted or NAME, why, Reason.ROTATION_NOT_READY)
        await self._note(caller, *made)
        await self._keyring.refresh()
        return made[0].key_id

    def _unknown(self) -> str:
        there = ", ".join(sorted(self._keyring.offered))
        return (
            f"is no key of this server: it has {there}. One that it can make itself it makes when asked to (make_new)"
        )

    async def _note(self, caller: Caller, new: NewKey, canary: bytes) -> None:
        """Have the database know a key; it is not the primary one yet."""
        async with self._database.system() as tx:
            await key_store.lock(tx)
            if new.key_id in {key.key_id for key in await key_store.keys(tx)}:
                return
            if await key_store.is_retired(tx, new.key_id):
                raise unusable("KEY", new.key_id, RETIRED, Reason.ROTATION_NOT_READY)
            await key_store.insert(tx, new.key_id, new.provider, canary, new.stored)
            details = {"key_id": new.key_id}
            entry = AuditEntry("credential.key.add", NAME, category=Category.SECURITY, details=details)
            await self._audit.write(tx, caller, entry)

    async def _everywhere(self, key_id: str) -> None:
        """Wait a little until every living server told that it has a key. Raises FailedPrecondition."""
        until = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        if await self._lacking(key_id):
            async with self._database.system(autocommit=True) as tx:
                await key_store.tell(tx)
        while lacking := await self._lacking(key_id):
            if asyncio.get_running_loop().time() > until:
                why = f"is not on {', '.join(lacking)}: configure it there, then rotate to {key_id!r} once more"
                raise unusable("KEY", key_id, why, Reason.ROTATION_NOT_READY)
            await asyncio.sleep(_LOOK_SECONDS)
