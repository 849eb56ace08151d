"""Checkpoints as signed notes (C2SP signed-note, tlog-checkpoint and tlog-cosignature), made and read."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = 0x01
COSIGNATURE = 0x04
_PUBLIC_BYTES = 32
_DASH = "\N{EM DASH} "
_YEAR_10000 = 253_402_300_800  # seconds since 1970


class NoteError(ValueError):
    """A text that is no note, key or signature, or not a right one."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key as others know it: who signs, how, and by which key."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that a signature names its key by."""
        return sha256(self.name.encode() + b"\n" + bytes((self.kind,)) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64encode(bytes((self.kind,)) + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """A key from its text. Raises NoteError."""
        try:
            name, key_id, encoded = text.strip().split("+", 2)
            material = b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise NoteError(f"{text!r} is no verifier key (name+id+key)") from None
        if not name or any(character.isspace() for character in name):
            raise NoteError(f"the name of {text!r} is empty, or has white space")
        if len(material) != 1 + _PUBLIC_BYTES or material[0] not in (ED25519, COSIGNATURE):
            raise NoteError(f"{text!r} is no Ed25519 key")
        key = cls(name, material[0], material[1:])
        if str(key) != text.strip() or key.id.hex() != key_id:
            raise NoteError(f"the id of {text!r} is not that of its key")
        return key


class SigningKey:
    """An Ed25519 key that signs checkpoints, of whatever log."""

    def __init__(self, seed: bytes) -> None:
        """`seed`: the 32 bytes of the private key. Raises ValueError."""
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"SigningKey({self.public.hex()})"

    def sign(self, origin: str, size: int, root: bytes) -> str:
        """A signed checkpoint."""
        text = checkpoint_text(origin, size, root)
        signature = self._private.sign(text.encode())
        return f"{text}\n{signature_line(VerifierKey(origin, ED25519, self.public), signature)}"


def origin_of(organization_id: UUID) -> str:
    """The name of an organization's log, and of the key that signs it."""
    return f"stationmaster.dev/audit/{organization_id}"


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """What is signed of a checkpoint."""
    return f"{origin}\n{size}\n{b64encode(root).decode()}\n"


def signature_line(key: VerifierKey, signature: bytes) -> str:
    """A signature as a line of a note."""
    return f"{_DASH}{key.name} {b64encode(key.id + signature).decode()}\n"


def cosignature(answer: str, note: str, key: VerifierKey) -> str:
    """The first line of a witness's answer that is its cosignature of this note; empty: there is none.

    In its one right form, whatever the witness's was: one that readers refuse would spoil the note for all of them.
    Raises NoteError when it is wrong.
    """
    text = note[: note.index("\n\n") + 1]
    for line in answer.splitlines():
        name, _, encoded = line.removeprefix(_DASH).rpartition(" ")
        if not line.startswith(_DASH) or name != key.name:
            continue
        try:
            signed = b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise NoteError(f"the witness {key.name} answered what is no signature") from None
        if signed[:4] == key.id:
            _check_cosignature(key, signed[4:], text)
            return signature_line(key, signed[4:])
    return ""


def _check_cosignature(key: VerifierKey, signed: bytes, text: str) -> None:
    when = int.from_bytes(signed[:8], "big")
    if not 0 < when < _YEAR_10000:
        raise NoteError(f"a cosignature of the witness {key.name} is of no time")
    message = f"cosignature/v1\ntime {when}\n{text}".encode()
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signed[8:], message)
    except InvalidSignature:
        raise NoteError(f"a cosignature of the witness {key.name} does not verify") from None
