"""The trail of everything that the demo did, which proves itself."""

from __future__ import annotations

from collections.abc import Sequence

from stationmaster.v1 import audit_pb2

from stationmaster_client.demo.acts.credentials import NAME as SECRET
from stationmaster_client.demo.acts.credentials import PURPOSE
from stationmaster_client.demo.stage import Stage
from stationmaster_client.structs import values
from stationmaster_client.transparency import Tampered, VerifierKey, verify_bundle

GOOD = "signed"


async def play(stage: Stage) -> None:
    """Find the secret that was read; verify the trail, and one in which a letter was changed."""
    client, programme = stage.client, stage.programme
    programme.act("The audit trail")
    condition = f'action = "credential.access" AND resource = "credentials/{SECRET}"'
    reads = [event async for event in client.audit.list(filter=condition)]
    told = len(reads) == 1 and _told(reads[0], (await client.whoami()).user.name)
    programme.check("Audit", "who read the secret is in the trail, and what for", told, f"{len(reads)} read")
    checkpoint, lines = await _bundle(stage)
    keys = [VerifierKey.parse(key.verifier_key) for key in checkpoint.keys]
    answer = _verified(lines, keys)
    whole = answer.startswith(GOOD) and any(b"credential.access" in line and SECRET.encode() in line for line in lines)
    programme.check("Audit", "the exported trail verifies with its public key", whole, answer)
    place = len(lines) // 2
    forged = [*lines[:place], _one_letter_changed(lines[place]), *lines[place + 1 :]]
    answer = _verified(forged, keys)
    programme.check("Audit", "one changed letter is detected", not answer.startswith(GOOD), answer)


def _told(read: audit_pb2.AuditEvent, reader: str) -> bool:
    return read.actor == reader and values(read.details).get("purpose") == PURPOSE


def _verified(lines: Sequence[bytes], keys: Sequence[VerifierKey]) -> str:
    """What the verification of a bundle says."""
    try:
        return f"{GOOD}, {verify_bundle(lines, keys).events} events"
    except Tampered as error:
        return str(error)


def _one_letter_changed(line: bytes) -> bytes:
    """The first letter of what was done becomes a capital."""
    before, action, after = line.partition(b'"action')
    for place in range(len(action) + 1, len(action + after)):
        letter = (action + after)[place : place + 1]
        if letter.islower():
            return before + (action + after)[:place] + letter.upper() + (action + after)[place + 1 :]
    return line


async def _bundle(stage: Stage) -> tuple[audit_pb2.AuditCheckpoint, list[bytes]]:
    """The newest checkpoint's keys, and the trail up to it."""
    lines = [line.encode() async for line in stage.client.audit.export()]
    return await stage.client.audit.checkpoint(), lines
