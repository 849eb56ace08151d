"""Keys of a server's providers: gathered, told apart from foreign ones, and proven before they are relied on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from stationmaster_server.credentials.envelope import KeyEncryptionKey
from stationmaster_server.credentials.model import StoredKey
from stationmaster_server.credentials.providers.base import KeyProvider, KeysUnreadable, NewKey

HOW = (
    "give it back by credentials.keys, credentials.key_file, credentials.passphrase or credentials.kms_key of the"
    " settings, or change to a key that is here (RotateEncryptionKey); nothing was changed"
)
NONE = (
    "no encryption key is configured: set credentials.keys, credentials.key_file, credentials.passphrase or"
    " credentials.kms_key"
)
NO_PRIMARY = "none of the encryption keys in the database is the primary one: mark it in credential_keys.is_primary"


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was found: keys that opened their canary, the ids of those that did not, and faults of providers.

    `offered`: the ids of all that providers give, also of what the database does not know. `remembered`: ids of keys
    that no provider gives any more, and that are here because they were right before.
    """

    right: dict[str, KeyEncryptionKey]
    foreign: frozenset[str]
    offered: frozenset[str]
    remembered: frozenset[str]
    faults: tuple[str, ...]


async def gather(
    providers: Iterable[KeyProvider], stored: Sequence[StoredKey], before: Mapping[str, KeyEncryptionKey] | None = None
) -> Gathered:
    """The keys that the database knows, of whichever provider has them first; else those that were here `before`."""
    found: dict[str, bytes] = {}
    faults: list[str] = []
    for provider in providers:
        try:
            had = await provider.keys([one for one in stored if one.provider == provider.name])
        except KeysUnreadable as error:
            had = error.had
            faults.append(str(error))
        for key_id, key in had.items():
            found.setdefault(key_id, key)
    given = {one.key_id: KeyEncryptionKey(one.key_id, found[one.key_id]) for one in stored if one.key_id in found}
    known = {**(before or {}), **given}
    right = {
        one.key_id: known[one.key_id] for one in stored if one.key_id in known and known[one.key_id].opens(one.canary)
    }
    return Gathered(
        right, frozenset(given.keys() - right), frozenset(found), frozenset(right.keys() - given), tuple(faults)
    )


async def make(
    providers: Iterable[KeyProvider], key_id: str, known: Collection[str], *, new: bool = True
) -> tuple[NewKey, bytes] | None:
    """A key to change to (see `KeyProvider.make`) and its canary, which the key opened when it was had once more.

    Raises KeysUnreadable.
    """
    for provider in providers:
        made = await provider.make(key_id, known, new=new)
        if made is not None:
            canary = KeyEncryptionKey(made.key_id, made.key).make_canary()
            stored = StoredKey(made.key_id, made.provider, False, canary, made.stored, 0, datetime.now(UTC))
            again = await gather([provider], [stored])
            if made.key_id not in again.right:
                why = "; ".join(again.faults) or f"the key {made.key_id!r} was made, but is not there when it is read"
                raise KeysUnreadable(why)
            return made, canary
    return None


def foreign(key_id: str) -> str:
    """What is said of a key that is not the one of the database."""
    return (
        f"the key {key_id!r} that this server was given is not the one that the credentials in the database"
        " are encrypted with: give it the right one; nothing was changed"
    )


def missing(key_id: str, faults: Sequence[str]) -> str:
    """What is said of a key that is needed and not here."""
    text = f"the key {key_id!r} is missing, which credentials in the database are encrypted with: {HOW}"
    return "; ".join([*faults, text])


def warning(primary: str, found: Gathered) -> str:
    """What is to be put right while everything can be read."""
    texts = list(found.faults)
    if found.remembered:
        ids = ", ".join(repr(key_id) for key_id in sorted(found.remembered))
        texts.append(f"no longer given to this server, which has it in memory and will not after a restart: key {ids}")
    texts.extend(foreign(key_id) for key_id in sorted(found.foreign))
    if primary not in found.right:
        what = f"the primary key {primary!r} is missing: credentials are read, but none is written"
        texts.append(f"{what}: {HOW}")
    return "; ".join(texts)
