"""A key from a passphrase, by scrypt once at start: the salt and the cost are in the database."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence

from stationmaster_server.credentials.envelope import KEY_BYTES
from stationmaster_server.credentials.model import StoredKey
from stationmaster_server.credentials.providers.base import KeysUnreadable, NewKey

_SALT_BYTES = 16
LOG_N, _R, _P = 17, 8, 1
"""128 MiB and a third of a second."""


class PassphraseKeys:
    """One key, under an id that the settings give: another passphrase needs another id."""

    name = "passphrase"

    def __init__(self, passphrase: str, key_id: str) -> None:
        self._passphrase = passphrase.encode()
        self._key_id = key_id
        self._derived: dict[bytes, bytes] = {}

    async def keys(self, stored: Sequence[StoredKey]) -> Mapping[str, bytes]:
        """See `KeyProvider.keys`."""
        return {key.key_id: await self._derive(key.material) for key in stored if key.key_id == self._key_id}

    async def make(self, key_id: str, known: Collection[str], *, new: bool = True) -> NewKey | None:
        """See `KeyProvider.make`: the one of the settings."""
        if key_id not in ("", self._key_id) or self._key_id in known:
            return None
        stored = bytes((LOG_N, _R, _P)) + secrets.token_bytes(_SALT_BYTES)
        return NewKey(self.name, self._key_id, await self._derive(stored), stored)

    async def _derive(self, stored: bytes) -> bytes:
        known = self._derived.get(stored)
        if known is None:
            known = self._derived[stored] = await asyncio.to_thread(self._scrypt, stored)
        return known

    def _scrypt(self, stored: bytes) -> bytes:
        # The cost is the database's word: bounded, as whoever can write there could have us use all memory.
        if len(stored) != 3 + _SALT_BYTES or not (14 <= stored[0] <= 20 and stored[1] == _R and stored[2] == _P):
            raise KeysUnreadable(f"what the database has of key {self._key_id!r} is no salt of a passphrase")
        log_n, r, p = stored[:3]
        memory = 128 * r * (1 << log_n) * 2
        return hashlib.scrypt(self._passphrase, salt=stored[3:], n=1 << log_n, r=r, p=p, maxmem=memory, dklen=KEY_BYTES)
