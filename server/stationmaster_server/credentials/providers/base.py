"""What a provider of keys does, and how keys are written."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stationmaster_server.credentials.envelope import KEY_BYTES
from stationmaster_server.credentials.model import StoredKey

_ID = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class KeysUnreadable(Exception):
    """Keys cannot be had; the text says why and what to do, and holds no key. `had`: those that could be."""

    def __init__(self, text: str, had: Mapping[str, bytes] | None = None) -> None:
        super().__init__(text)
        self.had = had or {}


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key of a provider. `stored`: what the provider needs to have it again (a salt, an encrypted key)."""

    provider: str
    key_id: str
    key: bytes = field(repr=False)
    stored: bytes = field(repr=False)


class KeyProvider(Protocol):
    """Has keys of 32 bytes, by id."""

    name: str

    async def keys(self, stored: Sequence[StoredKey]) -> Mapping[str, bytes]:
        """All that it has; `stored` are the keys of this provider that the database knows. Raises KeysUnreadable."""
        ...

    async def make(self, key_id: str, known: Collection[str], *, new: bool = True) -> NewKey | None:
        """A key to change to: of this id, or (empty) its newest that is not `known`, or one that it makes.

        None when it has none, and without `new` when it would have to make one of this id. Raises KeysUnreadable.
        """
        ...


def read_keys(lines: Sequence[str], where: str) -> dict[str, bytes]:
    """The keys of `id:base64` texts, in their order. Raises KeysUnreadable, whose text holds no key."""
    found: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        key_id, _, text = line.strip().partition(":")
        if not _ID.fullmatch(key_id):
            raise KeysUnreadable(f"{where}, key {number}: write id:base64, the id in small letters, digits, _ . -")
        try:
            key = b64decode(text, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise KeysUnreadable(
                f"{where}: key {key_id!r} must be the base64 of {KEY_BYTES} bytes: openssl rand -base64 32"
            )
        if key_id in found:
            raise KeysUnreadable(f"{where}: the id {key_id!r} stands there twice")
        found[key_id] = key
    return found


def wanted(provider: str, keys: Mapping[str, bytes], key_id: str, known: Collection[str]) -> NewKey | None:
    """The key of an id, or the last one that is not known."""
    chosen = key_id or next((one for one in reversed(list(keys)) if one not in known), "")
    return NewKey(provider, chosen, keys[chosen], b"") if chosen in keys else None
