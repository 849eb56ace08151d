"""Signs a checkpoint of each tree that has grown, about every second, on whichever server has the key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from stationmaster_server.audit import checkpoint_store
from stationmaster_server.audit.checkpoint_store import Signed
from stationmaster_server.audit.log_keys import LogKeys
from stationmaster_server.audit.notes import origin_of
from stationmaster_server.db.engine import Database
from stationmaster_server.resilience.loops import repeat
from stationmaster_server.resilience.pulse import Pulse

EVERY = timedelta(seconds=1)
LATE = timedelta(minutes=1)
"""An event that has had no checkpoint for so long tells that no server signs."""
_BATCH = 1000


class Signer:
    """`start` and `close` it."""

    def __init__(
        self,
        database: Database,
        keys: LogKeys,
        *,
        tell: Callable[[str], object] = lambda _: None,
        every: timedelta = EVERY,
    ) -> None:
        """`tell`: what is said of it after each look: why nothing is signed; empty when all is well."""
        self._tell = tell
        self._database = database
        self._keys = keys
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self.pulse = Pulse()
        self.behind_seconds = 0.0
        """For how long an event had been without a checkpoint when this server last looked."""

    async def start(self) -> None:
        """Read the keys, and begin to sign."""
        await self._keys.load()
        signing = repeat("sign audit checkpoints", self._every, self.sign, self.pulse)
        self._task = asyncio.create_task(signing, name="audit signer")

    async def close(self) -> None:
        """Stop. What has no checkpoint yet gets one at the next start, or from another server."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _unsigned(self) -> str:
        if self.behind_seconds < LATE.total_seconds():
            return ""
        minutes = f"{self.behind_seconds / 60:.0f} min"
        return f"no server has signed audit events for {minutes}: {self._keys.problem}; set audit.signing_keys"

    async def sign(self) -> None:
        """Sign what has grown since it was signed."""
        signed = _BATCH
        while signed == _BATCH:
            signed = await self._sign_batch()

    async def _sign_batch(self) -> int:
        async with self._database.system() as tx:
            if not await checkpoint_store.try_lock(tx):
                return 0
            self.behind_seconds = await checkpoint_store.behind_seconds(tx)
            key = await self._keys.signer(tx)
            self._tell(self._unsigned() if key is None else "")
            if key is None:
                return 0
            grown = await checkpoint_store.unsigned(tx, _BATCH)
            signed = []
            for organization_id, tree in grown:
                root = tree.root
                note = key.sign(origin_of(organization_id), tree.size, root)
                signed.append(Signed(organization_id, tree.size, root, note))
            if signed:
                await checkpoint_store.sign(tx, signed)
            return len(signed)
