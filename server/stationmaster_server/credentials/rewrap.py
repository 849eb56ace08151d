"""Wraps the keys of versions anew while a rotation runs: in batches, each of them one transaction, on any server.

Whatever ends a server in the middle, a batch is written or it is not: the next one goes on with what other keys wrap.
"""

from __future__ import annotations

import asyncio

import structlog

from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.envelope import Place, Unopened
from stationmaster_server.credentials.key_store import Wrapped
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import RotationState
from stationmaster_server.db.engine import Database

_log = structlog.get_logger(__name__)
BATCH = 500


class Rewrapper:
    """`run` from time to time, and when a rotation was started; several servers share the work."""

    def __init__(self, database: Database, keyring: Keyring, *, batch: int = BATCH) -> None:
        self._database = database
        self._keyring = keyring
        self._batch = batch
        self._running = asyncio.Lock()
        self.rewrapped = 0
        """How many this process has done."""
        self.damaged = 0
        """How many it could not, in the last run: what is stored of them is not what was encrypted."""

    async def run(self) -> int:
        """Go on until nothing is left or somebody stops it; returns how many were wrapped anew."""
        if not self._keyring.writes or self._running.locked():
            return 0
        async with self._running:
            return await self._run()

    async def _run(self) -> int:
        done, damaged, after = 0, 0, None
        while True:
            async with self._database.system(autocommit=True) as tx:
                waiting = await key_store.waiting(tx, after, self._batch)
            if waiting is None:
                return done
            target, count = waiting
            if target != self._keyring.primary or not count:  # another server knows more, or nothing is left
                break
            key_id = await self._keyring.reserve(count)
            batch, written = await self._rewrap(key_id, after, count)
            self._keyring.give_back(key_id, count - written)
            if not batch:
                break
            done, damaged, after = done + written, damaged + len(batch) - written, batch[-1].place
            self.rewrapped += written
        self.damaged = damaged
        await self._finish()
        return done

    async def _rewrap(self, key_id: str, after: Place | None, size: int) -> tuple[list[Wrapped], int]:
        """A batch, and how many of it were wrapped anew; nothing when the rotation was stopped or changed meanwhile."""
        async with self._database.system() as tx:
            if await key_store.running_target(tx) != key_id:
                return [], 0
            batch = await key_store.take_batch(tx, key_id, after, size)
            wrapped = self._wrapped(batch, key_id)
            written = await key_store.put_batch(tx, wrapped) if wrapped else 0
        return batch, written

    def _wrapped(self, batch: list[Wrapped], target: str) -> list[Wrapped]:
        """What could be wrapped anew."""
        new, wrapped = self._keyring.key(target), []
        for one in batch:
            try:
                sealed = new.rewrap(one.place, one.sealed, self._keyring.key(one.sealed.key_id))
            except Unopened:
                _log.error(
                    "the key of a stored credential does not open: it stays as it is",
                    organization=str(one.place.organization_id),
                    uid=str(one.place.uid),
                    version=one.place.version,
                )
                continue
            wrapped.append(Wrapped(one.place, sealed))
        return wrapped

    async def _finish(self) -> None:
        """Note that it is done, if nothing is left: another server may hold a batch, or write with the old key."""
        async with self._database.system() as tx:
            target = await key_store.running_target(tx)
            if target is not None and target == self._keyring.primary and not await key_store.remaining(tx, target):
                await key_store.set_rotation_state(tx, RotationState.DONE)
                _log.info("everything is wrapped by the new encryption key", key_id=target)
        if target is not None and target != self._keyring.primary:
            await self._keyring.refresh()
