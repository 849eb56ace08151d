"""The installation's encryption keys: what there is, changing to another, retiring one. For operators."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.key_choice import NAME, RETIRED, Choice, Lacking
from stationmaster_server.credentials.keyring import WARN_WRAPS, Keyring
from stationmaster_server.credentials.model import KeyStatus, RotationState, unusable
from stationmaster_server.credentials.rewrap import Rewrapper
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.requests import look, recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason
from stationmaster_server.identity.model import AuditEntry, Category
from stationmaster_server.identity.roles import require_operator

_WRAPS = "wraps credentials still: rotate to another key and wait until that is done"


class Keys:
    """The keys, as operators see them."""

    def __init__(
        self, database: Database, audit: AuditLog, keyring: Keyring, rewrapper: Rewrapper, lacking: Lacking
    ) -> None:
        """`lacking`: the names of other living servers that lack a key."""
        self._choice = Choice(database, audit, keyring, lacking)
        self._database = database
        self._audit = audit
        self._keyring = keyring
        self._rewrapper = rewrapper
        self._going_on: set[asyncio.Task[int]] = set()

    async def close(self) -> None:
        """Leave a rotation where it is."""
        for task in self._going_on:
            task.cancel()
        await asyncio.gather(*self._going_on, return_exceptions=True)

    async def status(self, caller: Caller) -> KeyStatus:
        """The keys and the newest rotation. Raises PermissionDenied."""
        _require_operator(caller)
        async with self._database.system(autocommit=True) as tx:
            return await self._status(tx)

    async def start(self, caller: Caller, key_id: str, *, make_new: bool = False) -> KeyStatus:
        """Change to a key that every living server has, and wrap everything by it, or go on with that.

        A key that the database does not know is noted first, so that the others look for it; `make_new`: one of this
        id may be made.

        Raises PermissionDenied, FailedPrecondition(ROTATION_NOT_READY), Unavailable(ENCRYPTION_KEY_UNAVAILABLE).
        """
        _require_operator(caller)
        await self._keyring.refresh()
        if self._keyring.problem and key_id not in self._keyring.present:
            self._keyring.require()  # the way back to a key that is here is open
        async with self._database.system(autocommit=True) as tx:
            again = await look(tx, caller.tenant, caller.request_key, KeyStatus)
            if again is not None:
                return again
            stored = await key_store.keys(tx)
            known = {key.key_id for key in stored}
            wanted = key_id or await self._choice.wanted(tx, stored)
            if wanted not in known and await key_store.is_retired(tx, wanted):
                raise unusable("KEY", wanted, "was retired: take another id", Reason.ROTATION_NOT_READY)
        target = await self._choice.target(caller, wanted, known, new=make_new or not key_id)
        async with self._database.system() as tx:
            again = await recall(tx, caller.tenant, caller.request_key, KeyStatus)
            if again is not None:
                return again
            await key_store.lock(tx)
            if target not in {key.key_id for key in await key_store.keys(tx)}:
                raise unusable("KEY", target, RETIRED, Reason.ROTATION_NOT_READY)
            await key_store.make_primary(tx, target)
            await key_store.start_rotation(tx, target)
            status = await self._told(tx, caller, "credential.key.rotate", target, here=(target,))
        await self._keyring.refresh()
        task = asyncio.create_task(self._rewrapper.run(), name="rewrap credentials")
        self._going_on.add(task)
        task.add_done_callback(self._ended)
        return status

    async def stop(self, caller: Caller) -> KeyStatus:
        """Stop a rotation where it is. Raises PermissionDenied, FailedPrecondition(ROTATION_NOT_READY)."""
        _require_operator(caller)
        async with self._database.system() as tx:
            again = await recall(tx, caller.tenant, caller.request_key, KeyStatus)
            if again is not None:
                return again
            await key_store.lock(tx)
            running = await key_store.rotation(tx)
            if running is None or running.state is not RotationState.RUNNING:
                raise unusable("ROTATION", NAME, "tells of no rotation that runs", Reason.ROTATION_NOT_READY)
            await key_store.set_rotation_state(tx, RotationState.STOPPED)
            return await self._told(tx, caller, "credential.key.stop", running.target_key_id)

    async def retire(self, caller: Caller, key_id: str) -> KeyStatus:
        """Take a key out of use for good. Raises PermissionDenied, FailedPrecondition(ENCRYPTION_KEY_IN_USE)."""
        _require_operator(caller)
        async with self._database.system() as tx:
            again = await recall(tx, caller.tenant, caller.request_key, KeyStatus)
            if again is not None:
                return again
            await key_store.lock(tx)
            if not key_id or key_id not in {key.key_id for key in await key_store.keys(tx)}:
                raise _in_use(key_id, "is no key that is in use")
            if await key_store.wrapping(tx, [key_id]):
                raise _in_use(key_id, _WRAPS)
            try:
                if not await key_store.retire(tx, key_id):
                    raise _in_use(key_id, "is the primary key: rotate to another one first")
            except key_store.StillWraps:  # another server wrote with it meanwhile
                raise _in_use(key_id, _WRAPS) from None
            status = await self._told(tx, caller, "credential.key.retire", key_id)
        await self._keyring.refresh()
        return status

    async def _told(
        self, tx: Transaction, caller: Caller, action: str, key_id: str, here: Collection[str] = ()
    ) -> KeyStatus:
        entry = AuditEntry(action, NAME, category=Category.SECURITY, details={"key_id": key_id})
        await self._audit.write(tx, caller, entry)
        status = await self._status(tx, here)
        await remember(tx, caller.tenant, caller.request_key, status)
        return status

    async def _status(self, tx: Transaction, here: Collection[str] = ()) -> KeyStatus:
        present = self._keyring.present.union(here)  # one that was just made is not in the ring yet
        shown = await key_store.shown(tx)
        keys = tuple(replace(key, present=key.key_id in present) for key in shown)
        warnings = [f"key {key.key_id!r} was used very often: rotate it" for key in keys if key.wraps > WARN_WRAPS]
        wanted = self._keyring.configured
        if wanted and self._keyring.primary and wanted != self._keyring.primary:
            warnings.append(f"the settings want key {wanted!r}: start a rotation to it")
        if self._rewrapper.damaged:
            text = f"{self._rewrapper.damaged} versions do not open and keep their key: the log names them"
            warnings.append(text)
        if self._keyring.warning:
            warnings.append(self._keyring.warning)
        return KeyStatus(keys, await key_store.rotation(tx), self._keyring.problem, tuple(warnings))

    def _ended(self, task: asyncio.Task[int]) -> None:
        self._going_on.discard(task)
        if not task.cancelled():
            task.exception()  # what went wrong is tried again by the background service, which logs it


def _require_operator(caller: Caller) -> None:
    require_operator(caller, "look after its encryption keys")


def _in_use(key_id: str, why: str) -> FailedPrecondition:
    violation = PreconditionViolation("KEY", key_id, why)
    return FailedPrecondition(Reason.ENCRYPTION_KEY_IN_USE, f"encryption key {key_id!r} {why}", violation)
