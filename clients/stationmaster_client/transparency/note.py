"""Signed notes and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature), read and verified."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

ED25519 = 0x01
COSIGNATURE = 0x04
_KINDS = (ED25519, COSIGNATURE)
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_MOST_SIGNATURES = 64
_LONGEST_SIZE = 20


class NoteError(Exception):
    """A text that is no note or no key, or whose signatures do not verify."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Who signs, how, and by which key: `name+id+key`."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that a signature names its key by."""
        return sha256(self.name.encode() + b"\n" + bytes((self.kind,)) + self.public).digest()[:4]

    @property
    def is_witness(self) -> bool:
        """Whether it is one that cosigns, not a log's."""
        return self.kind == COSIGNATURE

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """A key from its text. Raises NoteError."""
        name, _, rest = text.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        material = _decoded(encoded)
        if not name or any(character.isspace() for character in name) or material is None or len(material) != 33:
            raise NoteError(f"{text!r} is no verifier key (name+id+key)")
        if material[0] not in _KINDS:
            raise NoteError(f"{text!r} is of a type that is not known here")
        key = cls(name, material[0], material[1:])
        if key.id.hex() != key_id:
            raise NoteError(f"the id of {text!r} is not that of its key")
        return key


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that verified."""

    key: VerifierKey
    time: datetime | None
    """When a witness cosigned."""

    @property
    def name(self) -> str:
        """Who signed."""
        return self.key.name

    @property
    def kind(self) -> int:
        """How."""
        return self.key.kind


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head whose signatures verified."""

    origin: str
    size: int
    root: bytes
    signatures: tuple[Signature, ...]
    unknown: tuple[str, ...]
    """Who else signed, by keys that were not given: these were not checked."""


def open_note(note: str, keys: Iterable[VerifierKey]) -> tuple[str, tuple[Signature, ...], tuple[str, ...]]:
    """The text of a note, what verified, and the names of those whose keys are not known. Raises NoteError.

    A signature of a known key that does not verify spoils the note; so does having none of a known key.
    """
    if _CONTROL.search(note) or not note.endswith("\n"):
        raise NoteError("this is no signed note")
    text, blank, lines = note.rpartition("\n\n")
    if not blank or not lines:
        raise NoteError("this is no signed note")
    text += "\n"
    known = {(key.name, key.id): key for key in keys}
    verified, unknown = [], []
    signatures = lines.removesuffix("\n").split("\n")
    if len(signatures) > _MOST_SIGNATURES:
        raise NoteError("the note has too many signatures")
    for line in signatures:
        name, key_id, signature = _signature(line)
        key = known.get((name, key_id))
        if key is None:
            unknown.append(name)
        else:
            verified.append(_verify(key, signature, text))
    if not verified:
        raise NoteError("none of its signatures is by a key that was given")
    return text, tuple(verified), tuple(unknown)


def open_checkpoint(note: str, keys: Sequence[VerifierKey]) -> Checkpoint:
    """A checkpoint that a log's key signed; cosignatures alone do not suffice. Raises NoteError."""
    text, verified, unknown = open_note(note, keys)
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < 3 or not all(lines):
        raise NoteError("the note is no checkpoint: origin, size, root")
    origin, size, encoded = lines[:3]
    root = _decoded(encoded)
    if not re.fullmatch(r"0|[1-9][0-9]*", size) or len(size) > _LONGEST_SIZE or root is None or len(root) != 32:
        raise NoteError("the note is no checkpoint: origin, size, root")
    if not any(each.kind == ED25519 and each.name == origin for each in verified):
        raise NoteError("the checkpoint is not signed by the key of its log")
    return Checkpoint(origin, int(size), root, verified, unknown)


def _signature(line: str) -> tuple[str, bytes, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    signed = _decoded(encoded)
    if dash != "\N{EM DASH}" or not name or "+" in name or signed is None or len(signed) < 5:
        raise NoteError("a signature line of the note is malformed")
    return name, signed[:4], signed[4:]


def _verify(key: VerifierKey, signature: bytes, text: str) -> Signature:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    message, time = text.encode(), None
    if key.kind == COSIGNATURE:
        seconds, signature = int.from_bytes(signature[:8], "big"), signature[8:]
        message = f"cosignature/v1\ntime {seconds}\n{text}".encode()
        try:
            time = datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, ValueError, OSError):
            raise NoteError(f"the cosignature of {key.name} is of no time") from None
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise NoteError(f"the signature of {key.name} does not verify") from None
    return Signature(key, time)


def _decoded(text: str) -> bytes | None:
    """Base64 in its one right form; None: it is not."""
    try:
        found = b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return found if b64encode(found).decode() == text else None
