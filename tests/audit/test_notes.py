"""Notes, keys and cosignatures as C2SP says, on the examples of its pages, and both sides of ours on each other."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stationmaster_client.transparency.note import (
    COSIGNATURE,
    NoteError,
    VerifierKey,
    open_checkpoint,
    open_note,
)
from stationmaster_server.audit import notes
from stationmaster_server.audit.notes import SigningKey

# https://c2sp.org/signed-note, "Example" (the format of golang.org/x/mod/sumdb/note).
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# The example of the Go package, golang.org/x/mod/sumdb/note: its doc comment.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
LOG = SigningKey(bytes(range(32)))
ORIGIN = "example.com/log"
KEY = VerifierKey.parse(str(notes.VerifierKey(ORIGIN, notes.ED25519, LOG.public)))
ROOT = bytes(range(32, 64))


@pytest.mark.parametrize(("key", "note"), [(EXAMPLE_KEY, EXAMPLE), (PETER, PETER_NOTE)])
def test_notes_that_others_signed_verify(key: str, note: str) -> None:
    text, signatures, unknown = open_note(note, [VerifierKey.parse(key)])
    assert note.startswith(text)
    assert ([each.name for each in signatures], unknown) == ([key.partition("+")[0]], ())


def test_our_signatures_are_those_that_ed25519_gives_for_the_key_of_another() -> None:
    assert str(notes.VerifierKey.parse(EXAMPLE_KEY)) == EXAMPLE_KEY
    # The private key that the Go package shows beside its note.
    seed = b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
    signed = Ed25519PrivateKey.from_private_bytes(seed).sign(PETER_NOTE.partition("\n\n")[0].encode() + b"\n")
    line = notes.signature_line(notes.VerifierKey.parse(PETER), signed)
    assert PETER_NOTE.endswith(f"\n\n{line}")


def test_a_checkpoint_has_its_three_lines_and_verifies() -> None:
    note = LOG.sign(ORIGIN, 7, ROOT)
    assert note.startswith(f"{ORIGIN}\n7\n{b64encode(ROOT).decode()}\n\n— {ORIGIN} ")
    checkpoint = open_checkpoint(note, [KEY])
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, 7, ROOT)


@pytest.mark.parametrize(
    "spoiled",
    [
        "",
        "\n",
        "text",
        LOG.sign(ORIGIN, 7, ROOT)[:-1],
        LOG.sign(ORIGIN, 7, ROOT).replace("\n7\n", "\n8\n"),
        LOG.sign(ORIGIN, 7, ROOT).replace("— ", "- "),
        LOG.sign(ORIGIN, 7, ROOT).replace("\n\n", "\n"),
        LOG.sign(ORIGIN, 7, ROOT) + "\x00\n",
        LOG.sign("example.com/other", 7, ROOT),
        SigningKey(bytes(32)).sign(ORIGIN, 7, ROOT),
        LOG.sign(ORIGIN, 7, ROOT[:-1]),
        LOG.sign(f"{ORIGIN}\n07", 7, ROOT),
    ],
)
def test_what_is_no_signed_checkpoint_is_refused(spoiled: str) -> None:
    with pytest.raises(NoteError):
        open_checkpoint(spoiled, [KEY])


def test_a_signature_of_a_known_key_that_is_wrong_spoils_the_note() -> None:
    note = LOG.sign(ORIGIN, 7, ROOT)
    again = note + f"— {ORIGIN} {b64encode(KEY.id + bytes(64)).decode()}\n"
    with pytest.raises(NoteError, match="does not verify"):
        open_checkpoint(again, [KEY])


def test_signatures_of_unknown_keys_are_told_and_ignored() -> None:
    note = LOG.sign(ORIGIN, 7, ROOT) + EXAMPLE.rpartition("\n\n")[2]
    assert open_checkpoint(note, [KEY]).unknown == ("example.com/foo",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000+AQ==",
        EXAMPLE_KEY.replace("530d903a", "530d903b"),
        EXAMPLE_KEY.replace("example", "example "),
        EXAMPLE_KEY[:-1],
        EXAMPLE_KEY.replace("Aeky", "Beky"),
        str(notes.VerifierKey("two words", notes.ED25519, LOG.public)),
        str(notes.VerifierKey("", notes.ED25519, LOG.public)),
    ],
)
def test_what_is_no_key_is_refused_on_both_sides(text: str) -> None:
    with pytest.raises(NoteError):
        VerifierKey.parse(text)
    with pytest.raises(notes.NoteError):
        notes.VerifierKey.parse(text)


def cosignature(note: str, key: notes.VerifierKey, private: Ed25519PrivateKey, time: int) -> str:
    """A cosignature's line, as https://c2sp.org/tlog-cosignature says."""
    text = note.partition("\n\n")[0] + "\n"
    signed = private.sign(f"cosignature/v1\ntime {time}\n{text}".encode())
    return notes.signature_line(key, time.to_bytes(8, "big") + signed)


def test_cosignatures_verify_on_both_sides_and_do_not_stand_for_the_log() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    witness = notes.VerifierKey("witness.example/w1", notes.COSIGNATURE, private.public_key().public_bytes_raw())
    note = LOG.sign(ORIGIN, 7, ROOT)
    line = cosignature(note, witness, private, 1_679_315_147)
    assert notes.cosignature(EXAMPLE + line, note, witness) == line
    assert notes.cosignature(EXAMPLE, note, witness) == ""
    theirs = VerifierKey.parse(str(witness))
    checkpoint = open_checkpoint(note + line, [KEY, theirs])
    ((_, _), (kind, time)) = [(each.kind, each.time) for each in checkpoint.signatures]
    assert (kind, time and time.timestamp()) == (COSIGNATURE, 1_679_315_147)
    with pytest.raises(NoteError, match="not signed by the key of its log"):
        open_checkpoint(note + line, [theirs])
    with pytest.raises(notes.NoteError):
        notes.cosignature(line, LOG.sign(ORIGIN, 8, ROOT), witness)
    with pytest.raises(NoteError):
        open_checkpoint(LOG.sign(ORIGIN, 8, ROOT) + line, [KEY, theirs])


def test_what_a_sloppy_witness_answers_does_not_spoil_the_note_for_others() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    witness = notes.VerifierKey("witness.example/w1", notes.COSIGNATURE, private.public_key().public_bytes_raw())
    note = LOG.sign(ORIGIN, 7, ROOT)
    right = cosignature(note, witness, private, 1_679_315_147)
    assert right.endswith("==\n")
    padded = right[:-4] + chr(ord(right[-4]) + 1) + "==\n"  # base64 whose last bits are not 0: the same bytes
    for answer in (right * 100, padded, right.replace("\n", "\r\n")):
        kept = notes.cosignature(answer, note, witness)
        assert len(open_checkpoint(note + kept, [KEY, VerifierKey.parse(str(witness))]).signatures) == 2
        assert kept == right
    for time in (0, 253_402_300_800, 2**64 - 1):
        with pytest.raises(notes.NoteError, match="of no time"):
            notes.cosignature(cosignature(note, witness, private, time), note, witness)
