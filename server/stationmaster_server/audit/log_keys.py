"""Which key signs checkpoints: one for all organizations and servers, and the servers that have it do it (ADR 261)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from stationmaster_server.audit import key_store
from stationmaster_server.audit.notes import SigningKey
from stationmaster_server.audit.signing_keys import KeysUnusable, make_key_file, read_key_file, read_keys
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction

_log = structlog.get_logger(__name__)


class LogKeys:
    """The private keys of this server, and which of them signs."""

    def __init__(
        self, database: Database, *, configured: str = "", file: Path | None = None, make: bool = False
    ) -> None:
        """`configured`: keys of the settings, in place of a `file`; `make`: the file, if nobody has a key yet."""
        self._database = database
        self._configured = configured
        self._file = file
        self._make = make and not configured
        self._keys: list[SigningKey] = []
        self._told = ""
        self._unusable = ""

    @property
    def problem(self) -> str:
        """Why this server signed nothing when it last looked; empty: it signed, or had not looked yet."""
        return self._unusable or self._told

    async def load(self) -> None:
        """Read the keys, and have the newest one sign if this server may decide that: it has the one that signs now, or
        there is none yet. A key that was retired does not come back.
        """
        try:
            self._keys = await self._read()
        except KeysUnusable as error:
            self._unusable = str(error)
            _log.error("this server signs no audit checkpoints", problem=self._unusable)
            return
        if not self._keys:
            return
        newest = self._keys[-1].public
        async with self._database.system() as tx:
            await key_store.lock(tx)
            known = {key.public_key: key for key in await key_store.keys(tx)}
            active = await key_store.active(tx)
            if newest not in known and (active is None or self._find(active) is not None):
                await key_store.activate(tx, newest)

    async def check(self) -> str:
        """Why this server would sign nothing; empty: it would, or would make a key. Makes none. Raises KeysUnusable."""
        async with self._database.system(autocommit=True) as tx:
            active = await key_store.active(tx)
        if active is None and self._make:
            return ""
        self._make = False
        self._keys = await self._read()
        if active is None:
            return "" if self._keys else "no key is configured"
        return "" if self._find(active) else f"the key that signs, {active.hex()}, is not here"

    async def signer(self, tx: Transaction) -> SigningKey | None:
        """The key that signs, if it is here."""
        active = await key_store.active(tx)
        found = None if active is None else self._find(active)
        problem = "" if found else "no key is configured" if active is None else f"{active.hex()} is not here"
        if problem and problem != self._told and not self._unusable:
            _log.warning("this server signs no audit checkpoints: set audit.signing_keys", problem=problem)
        self._told = problem
        return found

    def _find(self, public: bytes) -> SigningKey | None:
        return next((key for key in self._keys if key.public == public), None)

    async def _read(self) -> list[SigningKey]:
        if self._configured:
            return read_keys(self._configured, "the setting audit.signing_keys")
        if self._file is None:
            return []
        found = await asyncio.to_thread(read_key_file, self._file)
        if found or not self._make:
            return found
        async with self._database.system(autocommit=True) as tx:
            if await key_store.active(tx) is not None:
                return []
        return await asyncio.to_thread(make_key_file, self._file)
