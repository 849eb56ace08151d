"""The envelope: the cipher against published vectors, ours against an independent decryption, what does not open."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.credentials.envelope import KeyEncryptionKey, Place, Sealed, Unopened, _decrypted

PUBLISHED: list[dict[str, str]] = json.loads(Path(__file__).with_name("published.json").read_text())["vectors"]
OURS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "docs/vectors/credentials.json").read_text(encoding="utf-8")
)["vectors"]
KEY = KeyEncryptionKey("one", bytes(32))
PLACE = Place(uuid4(), uuid4(), 1)


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: f"{vector['source']}-{vector['tag'][:8]}")
def test_the_cipher_agrees_with_published_vectors(vector: dict[str, str]) -> None:
    key, iv, aad, msg, ct, tag = (bytes.fromhex(vector[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag"))
    cipher = AESGCM(key)
    assert cipher.encrypt(iv, msg, aad) == ct + tag
    assert _decrypted(cipher, iv + ct + tag, aad) == msg
    for place in range(len(ct + tag)):
        changed = bytearray(ct + tag)
        changed[place] ^= 1
        with pytest.raises(Unopened):
            _decrypted(cipher, iv + bytes(changed), aad)


def derived(vector: dict[str, Any], label: str) -> bytes:
    """HKDF-SHA256 of one block, by hand (RFC 5869): no salt, 32 bytes."""
    prk = hmac.digest(bytes(32), bytes.fromhex(vector["key_material"]), hashlib.sha256)
    info = f"stationmaster credentials v1: {label}\0{vector['key_id']}".encode()
    return hmac.digest(prk, info + b"\1", hashlib.sha256)


@pytest.mark.parametrize("vector", OURS, ids=lambda vector: str(vector["key_id"]))
def test_an_independent_decryption_opens_the_vectors_of_the_guide(vector: dict[str, Any]) -> None:
    bound = b"\1\1" + UUID(vector["organization"]).bytes + UUID(vector["uid"]).bytes
    bound += int(vector["version"]).to_bytes(8, "big")
    wrapped, text = bytes.fromhex(vector["wrapped_key"]), bytes.fromhex(vector["ciphertext"])
    aad = b"stationmaster credential key\0" + bound + vector["key_id"].encode()
    data_key = AESGCM(derived(vector, "wrapping")).decrypt(wrapped[:12], wrapped[12:], aad)
    value = AESGCM(data_key).decrypt(text[:12], text[12:], b"stationmaster credential data\0" + bound)
    assert value.decode() == vector["value"]
    canary = bytes.fromhex(vector["canary"])
    sung = AESGCM(derived(vector, "canary")).decrypt(canary[:12], canary[12:], vector["key_id"].encode())
    assert sung == b"stationmaster canary\0"


@pytest.mark.parametrize("vector", OURS, ids=lambda vector: str(vector["key_id"]))
def test_the_server_opens_the_vectors_of_the_guide(vector: dict[str, Any]) -> None:
    key = KeyEncryptionKey(vector["key_id"], bytes.fromhex(vector["key_material"]))
    place = Place(UUID(vector["organization"]), UUID(vector["uid"]), vector["version"])
    sealed = Sealed(bytes.fromhex(vector["ciphertext"]), bytes.fromhex(vector["wrapped_key"]), vector["key_id"])
    assert key.open(place, sealed).decode() == vector["value"]
    assert key.opens(bytes.fromhex(vector["canary"]))


@given(st.binary(max_size=200), st.integers(1, 2**63 - 1))
def test_what_was_sealed_opens_in_its_place_and_in_no_other(value: bytes, version: int) -> None:
    place = replace(PLACE, version=version)
    sealed = KEY.seal(place, value)
    assert KEY.open(place, sealed) == value
    for elsewhere in (
        replace(place, organization_id=uuid4()),
        replace(place, uid=uuid4()),
        replace(place, version=version % (2**63 - 1) + 1),
    ):
        with pytest.raises(Unopened):
            KEY.open(elsewhere, sealed)


def test_no_byte_of_an_envelope_can_be_changed_or_cut() -> None:
    sealed = KEY.seal(PLACE, b"the secret")
    other = KEY.seal(PLACE, b"another")
    for name in ("ciphertext", "wrapped_key"):
        stored: bytes = getattr(sealed, name)
        spoiled = [stored[:place] + bytes([stored[place] ^ 1]) + stored[place + 1 :] for place in range(len(stored))]
        spoiled += [stored[:length] for length in range(len(stored))] + [stored + b"\0", getattr(other, name)]
        for text in spoiled:
            with pytest.raises(Unopened):
                KEY.open(PLACE, replace(sealed, **{name: text}))  # type: ignore[arg-type]


def test_a_key_is_taken_by_its_id_and_never_by_trial() -> None:
    sealed = KEY.seal(PLACE, b"the secret")
    same_bytes = KeyEncryptionKey("two", bytes(32))
    for key, stored in (
        (same_bytes, sealed),
        (same_bytes, replace(sealed, key_id="two")),
        (KEY, replace(sealed, key_id="two")),
        (KEY, replace(sealed, format=0)),
        (KEY, replace(sealed, format=2)),
    ):
        with pytest.raises(Unopened):
            key.open(PLACE, stored)
    assert not same_bytes.opens(KEY.make_canary())


def test_a_value_that_is_wrapped_anew_opens_with_the_new_key_alone() -> None:
    new = KeyEncryptionKey("two", bytes(range(32)))
    sealed = KEY.seal(PLACE, b"the secret")
    wrapped = new.rewrap(PLACE, sealed, KEY)
    assert wrapped.ciphertext == sealed.ciphertext
    assert new.open(PLACE, wrapped) == b"the secret"
    with pytest.raises(Unopened):
        KEY.open(PLACE, wrapped)


def test_nothing_secret_is_in_what_is_printed() -> None:
    sealed = KEY.seal(PLACE, b"the secret")
    assert repr(KEY) == "KeyEncryptionKey('one')"
    assert sealed.ciphertext.hex() not in repr(sealed)
    assert repr(sealed.ciphertext) not in repr(sealed)
