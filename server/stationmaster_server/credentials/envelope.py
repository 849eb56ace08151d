"""Envelope encryption: a fresh data key for each version, wrapped by a key-encryption key (docs/guides/credentials.md).

Both layers are AES-256-GCM; what they are bound to (organization, credential, version) travels as associated data, so
that a row which was moved, swapped or cut does not open. A key is taken by its id, never by trial.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FORMAT = 1
KEY_BYTES = 32
_ALGORITHM = 1  # AES-256-GCM
_NONCE_BYTES = 12
_DATA = b"stationmaster credential data\0"
_WRAP = b"stationmaster credential key\0"
_CANARY = b"stationmaster canary\0"
_WRAPPING_LABEL = b"stationmaster credentials v1: wrapping\0"
_CANARY_LABEL = b"stationmaster credentials v1: canary\0"
_REQUEST_LABEL = b"stationmaster credentials v1: request fingerprints\0"


class Unopened(Exception):
    """What is stored is not what was encrypted: another key, another place, or changed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value belongs, for good."""

    organization_id: UUID
    uid: UUID
    version: int

    def associated(self, label: bytes) -> bytes:
        """The associated data: fields of fixed length, then nothing or one of any length."""
        head = label + bytes((FORMAT, _ALGORITHM))
        return head + self.organization_id.bytes + self.uid.bytes + self.version.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value and its wrapped key; each begins with its nonce and ends with its tag."""

    ciphertext: bytes = field(repr=False)
    wrapped_key: bytes = field(repr=False)
    key_id: str
    format: int = FORMAT


class KeyEncryptionKey:
    """One key of the ring: what is derived from 32 bytes of key material, each purpose with a subkey of its own."""

    def __init__(self, key_id: str, material: bytes) -> None:
        if len(material) != KEY_BYTES:
            raise ValueError(f"key {key_id!r} has {len(material)} bytes, not {KEY_BYTES}")
        self.key_id = key_id
        self._wrapping = AESGCM(_derived(material, _WRAPPING_LABEL, key_id))
        self._canary = AESGCM(_derived(material, _CANARY_LABEL, key_id))
        self._requests = _derived(material, _REQUEST_LABEL, key_id)

    def __repr__(self) -> str:
        return f"KeyEncryptionKey({self.key_id!r})"

    def seal(self, place: Place, value: bytes) -> Sealed:
        """Encrypt a value under a fresh key, and wrap that."""
        data_key = AESGCM.generate_key(bit_length=256)
        return Sealed(
            _encrypted(AESGCM(data_key), value, place.associated(_DATA)), self._wrap(place, data_key), self.key_id
        )

    def open(self, place: Place, sealed: Sealed) -> bytes:
        """The value. Raises Unopened."""
        data_key = AESGCM(self._unwrap(place, sealed))
        return _decrypted(data_key, sealed.ciphertext, place.associated(_DATA))

    def rewrap(self, place: Place, sealed: Sealed, old: KeyEncryptionKey) -> Sealed:
        """The same ciphertext, its key wrapped by this key instead of an old one. Raises Unopened."""
        wrapped = self._wrap(place, old._unwrap(place, sealed))
        return Sealed(sealed.ciphertext, wrapped, self.key_id, sealed.format)

    def make_canary(self) -> bytes:
        """What only this key opens, to be looked at before it is used."""
        return _encrypted(self._canary, _CANARY, self.key_id.encode())

    def opens(self, canary: bytes) -> bool:
        """Whether the canary was made by this key."""
        try:
            return _decrypted(self._canary, canary, self.key_id.encode()) == _CANARY
        except Unopened:
            return False

    def fingerprint(self, digest: bytes) -> bytes:
        """A digest of a request that may hold a secret, so that nobody finds the secret by trying."""
        return hmac.digest(self._requests, digest, hashlib.sha256)

    def _wrap(self, place: Place, data_key: bytes) -> bytes:
        return _encrypted(self._wrapping, data_key, place.associated(_WRAP) + self.key_id.encode())

    def _unwrap(self, place: Place, sealed: Sealed) -> bytes:
        if sealed.format != FORMAT or sealed.key_id != self.key_id:
            raise Unopened
        data_key = _decrypted(self._wrapping, sealed.wrapped_key, place.associated(_WRAP) + self.key_id.encode())
        if len(data_key) != KEY_BYTES:
            raise Unopened
        return data_key


def _derived(material: bytes, label: bytes, key_id: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=label + key_id.encode()).derive(material)


def _encrypted(cipher: AESGCM, text: bytes, associated: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, text, associated)


def _decrypted(cipher: AESGCM, text: bytes, associated: bytes) -> bytes:
    try:
        return cipher.decrypt(text[:_NONCE_BYTES], text[_NONCE_BYTES:], associated)
    except (InvalidTag, ValueError):  # ValueError: cut so short that there is no nonce
        raise Unopened from None
