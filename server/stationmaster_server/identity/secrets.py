"""Secrets of API keys: `sm_{prefix}_{43 characters}`, shown once, stored as a hash."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

PREFIX_MARK = "sm_"
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_PREFIX_LENGTH = 10
_SECRET_BYTES = 32
_LENGTH = len(PREFIX_MARK) + _PREFIX_LENGTH + 1 + 43


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret just made: the only time that its text is known."""

    text: str = field(repr=False)
    prefix: str
    hash: bytes = field(repr=False)


def make_secret() -> NewSecret:
    """A fresh secret of 256 random bits."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(_PREFIX_LENGTH))
    text = f"{PREFIX_MARK}{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return NewSecret(text, prefix, hash_secret(text))


def hash_secret(text: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(text.encode()).digest()


def prefix_of(text: str) -> str | None:
    """The prefix that a secret is looked up by; None when the text cannot be a secret."""
    if len(text) != _LENGTH or not text.isascii() or text[len(PREFIX_MARK) + _PREFIX_LENGTH] != "_":
        return None
    prefix = text[len(PREFIX_MARK) : len(PREFIX_MARK) + _PREFIX_LENGTH]
    return prefix if all(character in _ALPHABET for character in prefix) else None
