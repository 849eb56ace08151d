"""The keys of this server: gathered from their providers, and checked against the database before they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

import structlog

from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.envelope import KeyEncryptionKey, Place, Sealed, Unopened
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
    """Seals and opens values. `problem` says why it cannot; while there is one, nothing is read or written."""

    def __init__(self, database: Database, providers: Sequence[KeyProvider], *, active: str = "") -> None:
        """`providers`: the first that has a key makes the first one; `active`: the id that the settings want."""
        self._database = database
        self._providers = providers
        self._active = active
        self._keys: Mapping[str, KeyEncryptionKey] = {}
        self._primary = ""
        self._reserved = 0
        self._offered: tuple[str, ...] = ()
        self._refreshing = asyncio.Lock()
        self.problem = "the keys have not been looked at yet"

    @property
    def present(self) -> frozenset[str]:
        """The ids of the keys that are here and right."""
        return frozenset(self._keys)

    @property
    def offered(self) -> tuple[str, ...]:
        """The ids of the keys that this server can change to without making one."""
        return self._offered

    @property
    def primary(self) -> str:
        """The id of the key that new values are encrypted under."""
        return self._primary

    @property
    def configured(self) -> str:
        """The id of the key that the settings want; empty when they leave it open."""
        return self._active

    async def refresh(self) -> str:
        """Look at the keys again, and make the first one if there is none; returns the problem, or nothing."""
        async with self._refreshing:
            problem = await self._looked(begin=True)
            if problem != self.problem and problem:
                _log.error("credentials are not served", problem=problem)
            self.problem = problem
            if problem:
                self._keys, self._primary, self._reserved = {}, "", 0
            return problem

    async def check(self) -> str:
        """What `refresh` would find, for whoever only looks: nothing is made, and nothing logged."""
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
        """As `open_now`, after looking at the keys again when the key is not here; never while a transaction is open.

        Raises Unavailable when it is not here even so, FailedPrecondition(CREDENTIAL_DAMAGED).
        """
        if sealed.key_id not in self._keys:
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
        self.require()
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
        """Raises Unavailable(ENCRYPTION_KEY_UNAVAILABLE) while there is a problem."""
        if self.problem:
            raise _unavailable()

    async def make(self, key_id: str, known: Collection[str], *, new: bool = True) -> NewKey | None:
        """A key to change to (see `KeyProvider.make`). Raises KeysUnreadable."""
        for provider in self._providers:
            made = await provider.make(key_id, known, new=new)
            if made is not None:
                return made
        return None

    async def _looked(self, *, begin: bool) -> str:
        try:
            return await self._look(begin=begin)
        except KeysUnreadable as error:
            return str(error)

    async def _look(self, *, begin: bool) -> str:
        async with self._database.system(autocommit=True) as tx:
            stored = await key_store.keys(tx)
        if not stored:
            stored = await self._begin() if begin else []
            if not stored:
                return _NONE
        material = await self._gather(stored)
        self._offered = tuple(material)
        keys = {key_id: KeyEncryptionKey(key_id, key) for key_id, key in material.items()}
        wrong = [one.key_id for one in stored if one.key_id in keys and not keys[one.key_id].opens(one.canary)]
        if wrong:
            return (
                f"the key {wrong[0]!r} that this server was given is not the one that the credentials in the database"
                " are encrypted with: give it the right one; nothing was changed"
            )
        lacking = await self._lacking(stored, keys)
        if lacking:
            return f"the key {lacking!r} is missing, which credentials in the database are encrypted with: {_HOW}"
        known = {one.key_id for one in stored}
        primary = next((one.key_id for one in stored if one.is_primary), None)
        if primary is None:
            return (
                "none of the encryption keys in the database is the primary one: mark it in credential_keys.is_primary"
            )
        if primary != self._primary:
            self._reserved = 0
        self._keys, self._primary = {key_id: key for key_id, key in keys.items() if key_id in known}, primary
        return ""

    async def _begin(self) -> list[StoredKey]:
        """The first key of this database, of the first provider that has one; servers that start at once agree."""
        new = await self.make(self._active, ())
        if new is None:
            return []
        canary = KeyEncryptionKey(new.key_id, new.key).make_canary()
        async with self._database.system() as tx:
            await key_store.lock(tx)
            stored = await key_store.keys(tx)
            if stored:
                return stored
            await key_store.insert(tx, new.key_id, new.provider, canary, new.stored)
            await key_store.make_primary(tx, new.key_id)
            return await key_store.keys(tx)

    async def _gather(self, stored: Sequence[StoredKey]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for provider in self._providers:
            for key_id, key in (await provider.keys([one for one in stored if one.provider == provider.name])).items():
                found.setdefault(key_id, key)
        return found

    async def _lacking(self, stored: Sequence[StoredKey], keys: Mapping[str, KeyEncryptionKey]) -> str:
        """A key that is needed and not here: the primary one, or one that wraps something."""
        absent = [one for one in stored if one.key_id not in keys]
        for one in absent:
            if one.is_primary:
                return one.key_id
        if absent:
            async with self._database.system(autocommit=True) as tx:
                return next(iter(await key_store.wrapping(tx, [one.key_id for one in absent])), "")
        return ""


_HOW = (
    "give it back by credentials.keys, credentials.key_file, credentials.passphrase or credentials.kms_key of the"
    " settings; nothing was changed"
)
_NONE = (
    "no encryption key is configured: set credentials.keys, credentials.key_file, credentials.passphrase or"
    " credentials.kms_key"
)


def _unavailable() -> Unavailable:
    text = "the key that credentials are encrypted with is missing or wrong on this server; its log says more"
    return Unavailable(Reason.ENCRYPTION_KEY_UNAVAILABLE, text)


def _worn_out(key_id: str) -> ResourceExhausted:
    text = f"the encryption key {key_id!r} has wrapped as often as is safe: rotate it (RotateEncryptionKey)"
    return ResourceExhausted(Reason.LIMIT_REACHED, text, retry_after=timedelta(hours=1))
