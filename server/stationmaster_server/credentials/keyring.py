"""The keys of this server: gathered from their providers, and checked against the database before they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

import structlog

from stationmaster_server.credentials import gathering, key_store
from stationmaster_server.credentials.envelope import KeyEncryptionKey, Place, Sealed, Unopened
from stationmaster_server.credentials.gathering import Gathered
from stationmaster_server.credentials.model import StoredKey
from stationmaster_server.credentials.providers.base import KeyProvider, KeysUnreadable, NewKey
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import (
    FailedPrecondition,
    PreconditionViolation,
    Reason,
    ResourceExhausted,
    Unavailable,
)

_log = structlog.get_logger(__name__)

MOST_WRAPS = 2**32
"""AES-GCM with random nonces takes no more under one key (NIST SP 800-38D, 8.3)."""
WARN_WRAPS = 2**30
_BLOCK = 256


class Keyring:
    """Seals and opens values.

    `problem`: why the service is not served, and nothing is written; what keys that are here wrap is read even so.
    `warning`: what is to be put right while it is served, such as a primary key that is missing and wraps nothing.
    """

    def __init__(self, database: Database, providers: Sequence[KeyProvider], *, active: str = "") -> None:
        """`providers`: the first that has a key makes the first one; `active`: the id that the settings want."""
        self._database = database
        self._providers = providers
        self._active = active
        self._keys: Mapping[str, KeyEncryptionKey] = {}
        self._primary = ""
        self._absent: frozenset[str] = frozenset()
        self._reserved = 0
        self._refreshing = asyncio.Lock()
        self.problem = "the keys have not been looked at yet"
        self.warning = ""
        self.given: frozenset[str] = frozenset()
        """The ids of the keys that are right and that a provider gave when it was last asked."""
        self.offered: frozenset[str] = frozenset()
        """The same of all that a provider gave, also of those that the database does not know."""

    @property
    def present(self) -> frozenset[str]:
        """The ids of the keys that are here and right."""
        return frozenset(self._keys)

    @property
    def primary(self) -> str:
        """The id of the key that new values are encrypted under."""
        return self._primary

    @property
    def writes(self) -> bool:
        """Whether new values can be encrypted."""
        return not self.problem and self._primary in self._keys

    @property
    def configured(self) -> str:
        """The id of the key that the settings want; empty when they leave it open."""
        return self._active

    async def refresh(self) -> str:
        """Look at the keys again, and make the first one if there is none; returns the problem, or nothing."""
        async with self._refreshing:
            before = (self.problem, self.warning)
            self.problem, self.warning = await self._looked(begin=True)
            if self.problem and self.problem != before[0]:
                _log.error("credentials are not served", problem=self.problem)
            if self.warning and self.warning != before[1]:
                _log.error("encryption keys need to be looked after", warning=self.warning)
            return self.problem

    async def check(self) -> tuple[str, str]:
        """The problem and the warning that `refresh` would find: nothing is made, and nothing logged."""
        return await self._looked(begin=False)

    def seal(self, place: Place, value: bytes) -> Sealed:
        """Encrypt a value under the primary key; call `reserve` before the transaction. Raises Unavailable."""
        return self.key(self._primary).seal(place, value)

    async def reserve(self, count: int = 1) -> str:
        """Count wraps before they are made, and returns the key they are of; never while a transaction is open.

        Raises Unavailable, ResourceExhausted: the key has wrapped too often.
        """
        self.require()
        while self._reserved < count:
            key_id, block = self._primary, max(_BLOCK, count)
            async with self._database.system(autocommit=True) as tx:
                wraps = await key_store.reserve(tx, key_id, block)
            if wraps is None:
                await self.refresh()
            elif wraps > MOST_WRAPS:
                raise _worn_out(key_id)
            elif wraps > WARN_WRAPS:
                _log.warning("an encryption key was used very often: rotate it", key_id=key_id, wraps=wraps)
            self.require()
            if wraps is not None and key_id == self._primary:
                self._reserved += block
        self._reserved -= count
        return self._primary

    def give_back(self, key_id: str, count: int) -> None:
        """Take back wraps that were reserved and not made, for the next who needs some."""
        if key_id == self._primary:
            self._reserved += count

    async def open(self, place: Place, sealed: Sealed, name: str) -> bytes:
        """As `open_now`, after looking at the keys again when the key is a new one; never while a transaction is open.

        Raises Unavailable when it is not here even so, FailedPrecondition(CREDENTIAL_DAMAGED).
        """
        if sealed.key_id not in self._keys and sealed.key_id not in self._absent:
            await self.refresh()  # another server may have begun to use it
        return self.open_now(place, sealed, name)

    def open_now(self, place: Place, sealed: Sealed, name: str) -> bytes:
        """The value. Raises Unavailable when its key is not here, FailedPrecondition(CREDENTIAL_DAMAGED)."""
        try:
            return self.key(sealed.key_id).open(place, sealed)
        except Unopened:
            _log.error("a stored credential does not open: it was changed or moved in the database", credential=name)
            why = "was changed or moved in the database: restore it from a backup, or add a new version"
            violation = PreconditionViolation("DAMAGED", name, why)
            raise FailedPrecondition(Reason.CREDENTIAL_DAMAGED, f"{name} {why}", violation) from None

    def key(self, key_id: str) -> KeyEncryptionKey:
        """A key by its id. Raises Unavailable."""
        key = self._keys.get(key_id)
        if key is None:
            raise _unavailable()
        return key

    def fingerprints(self, digest: bytes) -> list[bytes]:
        """A digest of a request under each key, the primary one first."""
        self.require()
        ids = [self._primary, *(key_id for key_id in self._keys if key_id != self._primary)]
        return [self._keys[key_id].fingerprint(digest) for key_id in ids]

    def require(self) -> None:
        """Raises Unavailable(ENCRYPTION_KEY_UNAVAILABLE) while nothing can be encrypted."""
        if not self.writes:
            raise _unavailable()

    async def make(self, key_id: str, known: Collection[str], *, new: bool = True) -> tuple[NewKey, bytes] | None:
        """See `gathering.make`. Raises KeysUnreadable."""
        return await gathering.make(self._providers, key_id, known, new=new)

    async def _looked(self, *, begin: bool) -> tuple[str, str]:
        async with self._database.system(autocommit=True) as tx:
            stored = await key_store.keys(tx)
        if not stored and begin:
            try:
                stored = await self._begin()
            except KeysUnreadable as error:
                return str(error), ""
        found = await gathering.gather(self._providers, stored, self._keys)
        return await self._judged(stored, found) if stored else (gathering.NONE, "")

    async def _judged(self, stored: Sequence[StoredKey], found: Gathered) -> tuple[str, str]:
        """Take what was found, where nothing is wrong with it; what is wrong."""
        primary = next((one.key_id for one in stored if one.is_primary), "")
        self._take(found.right, primary)
        self.given, self.offered = frozenset(found.right) - found.remembered, found.offered
        absent = [one.key_id for one in stored if one.key_id not in found.right]
        self._absent = frozenset(absent)  # each read that wants one does not have every provider asked again
        if not primary:
            return gathering.NO_PRIMARY, ""
        async with self._database.system(autocommit=True) as tx:
            needed = await key_store.wrapping(tx, absent) if absent else []
        foreign = found.foreign & {primary, *needed}
        if foreign:
            return gathering.foreign(min(foreign)), ""
        if needed or not found.right:
            return gathering.missing(min(needed or absent), found.faults), ""
        return "", gathering.warning(primary, found)

    def _take(self, keys: Mapping[str, KeyEncryptionKey], primary: str) -> None:
        if primary != self._primary or primary not in keys:
            self._reserved = 0
        self._keys, self._primary = keys, primary

    async def _begin(self) -> list[StoredKey]:
        """The first key of this database, of the first provider that has one; servers that start at once agree."""
        made = await self.make(self._active, ())
        if made is None:
            return []
        new, canary = made
        async with self._database.system() as tx:
            await key_store.lock(tx)
            stored = await key_store.keys(tx)
            if stored:
                return stored
            await key_store.insert(tx, new.key_id, new.provider, canary, new.stored)
            await key_store.make_primary(tx, new.key_id)
            return await key_store.keys(tx)


def _unavailable() -> Unavailable:
    text = "the key that credentials are encrypted with is missing or wrong on this server; its log says more"
    return Unavailable(Reason.ENCRYPTION_KEY_UNAVAILABLE, text)


def _worn_out(key_id: str) -> ResourceExhausted:
    text = f"the encryption key {key_id!r} has wrapped as often as is safe: rotate it (RotateEncryptionKey)"
    return ResourceExhausted(Reason.LIMIT_REACHED, text, retry_after=timedelta(hours=1))
