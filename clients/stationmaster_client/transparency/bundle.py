"""Bundles: an audit trail, or its end, with all that is needed to verify it (docs/formats/audit.md)."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from stationmaster_client.transparency.note import Checkpoint, NoteError, VerifierKey, open_checkpoint
from stationmaster_client.transparency.tree import Tree, leaf_hash

FORMAT = "stationmaster-audit-bundle/1"
ORIGIN = "stationmaster.dev/audit/"
_LABEL = b"stationmaster audit leaf v1\n"
_HEADER = ("format", "origin", "after", "size", "left")
_EVENT = ("sequence", "id", "time", "salt", "body")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DELETED = ("sequence", "id", "time", "commitment")


class Tampered(Exception):
    """The bundle is not what was signed; says where that was seen."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a bundle was shown to be."""

    checkpoint: Checkpoint
    after: int
    """How many events stand before its first one, of which it has hashes only."""
    deleted: int
    """Events whose contents retention has deleted."""
    previous: Checkpoint | None
    """The earlier checkpoint that it was shown to go on from."""

    @property
    def events(self) -> int:
        """How many events it has."""
        return self.checkpoint.size - self.after


def verify_bundle(
    lines: Iterable[bytes],
    keys: Sequence[VerifierKey],
    previous: Checkpoint | None = None,
    *,
    deleted_until: datetime | None = None,
) -> Verified:
    """Verify a bundle, line by line, in little memory. Raises Tampered.

    `keys`: of the log, and of witnesses. `previous`: a checkpoint that was kept from before, which the bundle has to go
    on from: without one, nobody can tell that its end was not cut off and signed anew. `deleted_until`: what is older
    may have been deleted by retention; anything else that was deleted is Tampered.
    """
    allowed = 0 if deleted_until is None else (deleted_until - _EPOCH) // timedelta(microseconds=1)
    reader = _whole(lines)
    header = _read(next(reader, b""), _HEADER, "the first line")
    if header["format"] != FORMAT:
        raise Tampered(f"the first line is not that of a bundle ({FORMAT})")
    origin, after, size = header["origin"], _count(header, "after"), _count(header, "size")
    if not isinstance(header["left"], list):
        raise Tampered("the first line is malformed")
    try:
        tree = Tree(after, [_bytes(each, 32) for each in header["left"]])
        organization = str(UUID(str(origin).removeprefix(ORIGIN)))
    except ValueError as error:
        raise Tampered(f"the first line is malformed: {error}") from None
    if origin != ORIGIN + organization or after > size:
        raise Tampered("the first line is malformed")
    shown = previous is None or _goes_through(tree, previous)
    deleted = 0
    while tree.size < size:
        event = _event(next(reader, b""), tree.size + 1)
        is_deleted = tuple(event) == _DELETED
        tree.add(leaf_hash(_leaf(event, organization)))
        if is_deleted and event["time"] >= allowed:
            raise Tampered(f"event {tree.size} was deleted: say until when retention deletes, if that was it")
        deleted += is_deleted
        shown = shown or (previous is not None and _goes_through(tree, previous))
    checkpoint = _checkpoint(next(reader, b""), keys)
    if next(reader, None) is not None:
        raise Tampered("something follows the checkpoint")
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (origin, size, tree.root):
        raise Tampered(_differ(checkpoint, (origin, size), after, previous if shown else None))
    if previous is not None and not shown:
        raise Tampered(_not_shown(previous, checkpoint, after))
    if previous is not None and previous.origin != origin:
        raise Tampered(f"the earlier checkpoint is of another log, {previous.origin}")
    return Verified(checkpoint, after, deleted, previous)


def verify_extends(older: Checkpoint, newer: Checkpoint) -> None:
    """Raises Tampered when two checkpoints of equal size, or of different logs, contradict each other."""
    if older.origin != newer.origin:
        raise Tampered(f"{newer.origin} is another log than {older.origin}")
    if older.size > newer.size:
        raise Tampered(f"the log had {older.size} events, and has {newer.size} now: it was cut")
    if older.size == newer.size and older.root != newer.root:
        raise Tampered(f"the log forked: two trees of {older.size} events were signed")


def _goes_through(tree: Tree, previous: Checkpoint) -> bool:
    if tree.size != previous.size:
        return False
    if tree.root != previous.root:
        raise Tampered(f"the log forked: its first {previous.size} events are not those of the earlier checkpoint")
    return True


def _differ(checkpoint: Checkpoint, told: tuple[str, int], after: int, previous: Checkpoint | None) -> str:
    """Among which events the edit is. `previous`: the earlier checkpoint, if the events before it are right."""
    size = told[1]
    if (checkpoint.origin, checkpoint.size) != told:
        return f"the first line tells of {size} events, the checkpoint of {checkpoint.size} of {checkpoint.origin}"
    first = (previous.size if previous else after) + 1
    if first > size:
        return "the first line is not that of the events that the checkpoint was signed over"
    which = f"event {size} is not the one" if first == size else f"the events {first} to {size} are not those"
    before = ", or the first line is wrong about those before them" if after and not previous else ""
    hint = "" if first == size else "; which of them differ cannot be told from hashes"
    return f"{which} that the checkpoint was signed over{before}{hint}"


def _not_shown(previous: Checkpoint, checkpoint: Checkpoint, after: int) -> str:
    if previous.size > checkpoint.size:
        return (
            f"the earlier checkpoint tells of {previous.size} events, this bundle of {checkpoint.size}: either the log"
            " was cut, or the bundle was exported before that checkpoint; export it anew, and verify again"
        )
    return f"the bundle begins after event {after}: to go on from {previous.size} events, export after that or before"


def _whole(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        if not line.endswith(b"\n"):
            raise Tampered("the last line is cut off")
        yield line[:-1]


def _event(line: bytes, sequence: int) -> dict[str, Any]:
    where = f"event {sequence}"
    if not line:
        raise Tampered(f"{where} is missing")
    event = _read(line, None, where)
    if tuple(event) not in (_EVENT, _DELETED):
        raise Tampered(f"{where} is missing or malformed")
    if _count(event, "sequence") != sequence:
        raise Tampered(f"{where} is missing: event {event['sequence']} stands in its place")
    return event


def _leaf(event: dict[str, Any], organization: str) -> bytes:
    where, time = f"event {event['sequence']}", event["time"]
    try:
        event_id = UUID(event["id"])
        if type(time) is not int or str(event_id) != event["id"]:
            raise ValueError
        if "commitment" in event:
            commitment = _bytes(event["commitment"], 32)
        else:
            commitment = sha256(_bytes(event["salt"], 32) + event["body"].encode()).digest()
            _check_body(event, organization, where)
        moment: bytes = time.to_bytes(8, "big", signed=True)
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        raise Tampered(f"{where} is malformed") from None
    place: bytes = event["sequence"].to_bytes(8, "big")
    return _LABEL + place + event_id.bytes + moment + commitment


def _check_body(event: dict[str, Any], organization: str, where: str) -> None:
    body = json.loads(event["body"])
    if (body.get("organization"), body.get("id"), body.get("time")) != (organization, event["id"], event["time"]):
        raise Tampered(f"{where} contradicts its body")


def _checkpoint(line: bytes, keys: Sequence[VerifierKey]) -> Checkpoint:
    note = _read(line, ("checkpoint",), "the checkpoint")["checkpoint"]
    if not isinstance(note, str):
        raise Tampered("the checkpoint is malformed")
    try:
        return open_checkpoint(note, keys)
    except NoteError as error:
        raise Tampered(f"the checkpoint does not verify: {error}") from None


def _read(line: bytes, names: tuple[str, ...] | None, where: str) -> dict[str, Any]:
    """A line in its one right form, so that no byte of it is without meaning."""
    try:
        values = json.loads(line)
        again = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise Tampered(f"{where} is missing or malformed") from None
    if not isinstance(values, dict) or again != line or (names is not None and tuple(values) != names):
        raise Tampered(f"{where} is missing or malformed")
    return values


def _count(values: dict[str, Any], name: str) -> int:
    value = values[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise Tampered(f"{name} is no count")
    return value


def _bytes(text: object, length: int) -> bytes:
    if not isinstance(text, str):
        raise ValueError("no base64")
    try:
        found = b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if b64encode(found).decode() != text or len(found) != length:
        raise ValueError("no base64 of the right length")
    return found
