"""Bundles verify offline, and nothing that is done to one, or to the database before, passes."""

from __future__ import annotations

import csv
import io
import json
import random
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

import pytest
from stationmaster_client.transparency import Checkpoint, Tampered, open_checkpoint, verify_bundle, verify_extends
from stationmaster_client.transparency.bundle import _leaf
from stationmaster_client.transparency.tree import Tree, leaf_hash
from stationmaster_server.audit.exporting import Exporting
from stationmaster_server.audit.model import AuditEntry, ExportFormat
from stationmaster_server.audit.notes import SigningKey
from stationmaster_server.db.ids import new_id
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.identity.model import Caller

from tests.audit.conftest import Server
from tests.audit.verified import SIGNER, export, key_of, line_of, lines_of, signed, verify

EVENTS = 12
Tampering = Callable[[list[str]], list[str]]


async def fill(server: Server, caller: Caller, count: int = EVENTS) -> Checkpoint:
    """Some events, and the checkpoint over them."""
    for number in range(count):
        entry = AuditEntry(
            f"thing.{number}", f"things/{number}", reason="weil «ß» \u2028", details={"é": [number, 0.5]}
        )
        async with server.database.tenant(caller.tenant) as tx:
            await server.log.write(tx, caller, entry)
    return await signed(server, caller, count)


def sign_again(lines: list[str], caller: Caller, signer: SigningKey = SIGNER) -> list[str]:
    """The lines under a checkpoint of their own: what only who has a signing key can make."""
    header = json.loads(lines[0])
    tree = Tree(header["after"], [b64decode(each) for each in header["left"]])
    for line in lines[1:-1]:
        tree.add(leaf_hash(_leaf(json.loads(line), str(caller.tenant.organization_id))))
    header["size"] = tree.size
    return [line_of(**header), *lines[1:-1], line_of(checkpoint=signer.sign(header["origin"], tree.size, tree.root))]


def renumbered(lines: list[str]) -> list[str]:
    """The lines with sequences from 1 on, and a size that fits."""
    header = json.loads(lines[0]) | {"size": len(lines) - 2}
    events = [json.loads(line) | {"sequence": number} for number, line in enumerate(lines[1:-1], 1)]
    return [line_of(**header), *(line_of(**event) for event in events), lines[-1]]


async def test_a_bundle_verifies_with_the_public_key_alone(server: Server, caller: Caller) -> None:
    await fill(server, caller)
    bundle = await export(server, caller)
    verified = verify(bundle, caller)
    assert (verified.checkpoint.size, verified.events, verified.deleted, verified.after) == (EVENTS, EVENTS, 0, 0)
    body = json.loads(json.loads(lines_of(bundle)[3])["body"])
    assert (body["action"], body["reason"], body["details"]) == ("thing.2", "weil «ß» \u2028", {"é": [2, 0.5]})


async def test_a_later_bundle_goes_on_from_a_checkpoint_that_was_kept(server: Server, caller: Caller) -> None:
    first = await fill(server, caller)
    for _ in range(40):
        await server.change(caller)
    await signed(server, caller, EVENTS + 40)
    for after in (0, 3, EVENTS):
        verified = verify(await export(server, caller, after=after), caller, first)
        assert (verified.after, verified.previous) == (after, first)
    late = await export(server, caller, after=EVENTS + 1)
    assert verify(late, caller).after == EVENTS + 1
    with pytest.raises(Tampered, match="export after that or before"):
        verify(late, caller, first)
    with pytest.raises(InvalidArgument):
        await export(server, caller, after=10_000)


async def test_an_edit_is_narrowed_down_by_checkpoints_that_were_kept(server: Server, caller: Caller) -> None:
    first = await fill(server, caller)
    for _ in range(4):
        await server.change(caller)
    await signed(server, caller, EVENTS + 4)

    def edited(lines: list[str], sequence: int) -> str:
        (place,) = [place for place, line in enumerate(lines) if line.startswith(f'{{"sequence":{sequence},')]
        event = json.loads(lines[place])
        return "".join([*lines[:place], line_of(**event | {"body": event["body"] + " "}), *lines[place + 1 :]])

    lines = lines_of(await export(server, caller))
    with pytest.raises(Tampered, match=rf"the events 1 to {EVENTS + 4} are not those that .* which of them"):
        verify(edited(lines, 3), caller)
    with pytest.raises(Tampered, match=f"its first {EVENTS} events are not those of the earlier checkpoint"):
        verify(edited(lines, 3), caller, first)
    with pytest.raises(Tampered, match=f"the events {EVENTS + 1} to {EVENTS + 4} are not those"):
        verify(edited(lines, EVENTS + 2), caller, first)
    late = lines_of(await export(server, caller, after=EVENTS + 3))
    with pytest.raises(Tampered, match=f"event {EVENTS + 4} is not the one .* or the first line is wrong"):
        verify(edited(late, EVENTS + 4), caller)


TAMPERINGS: dict[str, Tampering] = {
    "edit": lambda lines: [*lines[:4], lines[4].replace("thing.3", "thing.x"), *lines[5:]],
    "edit an id": lambda lines: [*lines[:4], line_of(**json.loads(lines[4]) | {"id": str(new_id())}), *lines[5:]],
    "edit a time": lambda lines: [
        *lines[:4],
        line_of(**json.loads(lines[4]) | {"time": json.loads(lines[4])["time"] + 1}),
        *lines[5:],
    ],
    "edit a salt": lambda lines: [
        *lines[:4],
        line_of(**json.loads(lines[4]) | {"salt": b64encode(bytes(32)).decode()}),
        *lines[5:],
    ],
    "delete": lambda lines: [*lines[:4], *lines[5:]],
    "delete and renumber": lambda lines: renumbered([*lines[:4], *lines[5:]]),
    "delete the first": lambda lines: renumbered([lines[0], *lines[2:]]),
    "delete the contents": lambda lines: [
        *lines[:4],
        line_of(
            **{name: json.loads(lines[4])[name] for name in ("sequence", "id", "time")},
            commitment=b64encode(bytes(32)).decode(),
        ),
        *lines[5:],
    ],
    "insert": lambda lines: [*lines[:4], lines[3], *lines[4:]],
    "insert and renumber": lambda lines: renumbered([*lines[:4], lines[3], *lines[4:]]),
    "swap": lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]],
    "swap and renumber": lambda lines: renumbered([*lines[:4], lines[5], lines[4], *lines[6:]]),
    "truncate": lambda lines: [*lines[:-3], lines[-1]],
    "truncate and renumber": lambda lines: renumbered([*lines[:-3], lines[-1]]),
    "truncate all": lambda lines: lines[:5],
    "cut within a line": lambda lines: [*lines[:-1], lines[-1][:-1]],
    "nothing": lambda lines: [],
    "begin later": lambda lines: [line_of(**json.loads(lines[0]) | {"after": 1}), *lines[2:]],
    "append": lambda lines: [*lines, lines[-1]],
    "another root": lambda lines: [*lines[:-1], lines[-1].replace(f"\\n{EVENTS}\\n", f"\\n{EVENTS + 1}\\n")],
    "another log": lambda lines: [line.replace("stationmaster.dev", "stationmaster.org") for line in lines],
    "white space": lambda lines: [lines[0].replace(",", ", ", 1), *lines[1:]],
    "another order of names": lambda lines: [line_of(**dict(reversed(json.loads(lines[0]).items()))), *lines[1:]],
}


def with_event(lines: list[str], caller: Caller, salt: bytes, body: str) -> list[str]:
    """The lines with another first event, under a checkpoint of their own."""
    event = json.loads(lines[1]) | {"salt": b64encode(salt).decode(), "body": body}
    # Not through `_leaf`, which is what is tested.
    commitment = b64encode(sha256(salt + body.encode()).digest()).decode()
    bare = line_of(**{name: event[name] for name in ("sequence", "id", "time")}, commitment=commitment)
    signed_again = sign_again([lines[0], bare, *lines[2:]], caller)
    return [signed_again[0], line_of(**event), *signed_again[2:]]


async def test_no_byte_moves_from_a_salt_into_a_body(server: Server, caller: Caller) -> None:
    await fill(server, caller, 2)
    lines = lines_of(await export(server, caller))
    body = json.loads(lines[1])["body"]
    assert verify("".join(with_event(lines, caller, b"x" * 31 + b" ", body)), caller).events == 2
    with pytest.raises(Tampered, match="event 1 is malformed"):
        verify("".join(with_event(lines, caller, b"x" * 31, f" {body}")), caller)


async def test_a_body_of_any_depth_is_judged(server: Server, caller: Caller) -> None:
    await fill(server, caller, 2)
    lines = lines_of(await export(server, caller))
    with pytest.raises(Tampered, match="event 1 is malformed"):
        verify("".join(with_event(lines, caller, bytes(32), "[" * 100_000 + "]" * 100_000)), caller)


@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_a_bundle_that_was_tampered_with_does_not_verify(server: Server, caller: Caller, tampering: str) -> None:
    await fill(server, caller)
    lines = lines_of(await export(server, caller))
    changed = TAMPERINGS[tampering](lines)
    assert changed != lines
    with pytest.raises(Tampered):
        verify("".join(changed), caller)


async def test_a_checkpoint_of_another_key_does_not_verify(server: Server, caller: Caller, stranger: Caller) -> None:
    await fill(server, caller)
    lines = lines_of(await export(server, caller))
    forged = sign_again(lines, caller, SigningKey(bytes(32)))
    with pytest.raises(Tampered, match="does not verify"):
        verify("".join(forged), caller)
    # The same key id and name, as a forger would write them: the signature is looked at.
    mine, theirs = (json.loads(each[-1])["checkpoint"] for each in (lines, forged))
    spliced = (
        mine[: mine.rindex(" ") + 1] + b64encode(key_of(caller).id + b64decode(theirs.split(" ")[-1])[4:]).decode()
    )
    with pytest.raises(Tampered, match="does not verify"):
        verify("".join([*forged[:-1], line_of(checkpoint=spliced + "\n")]), caller)
    with pytest.raises(Tampered):
        verify("".join(lines), stranger)


async def test_who_has_the_key_can_rewrite_but_not_what_somebody_has_seen(server: Server, caller: Caller) -> None:
    seen = await fill(server, caller)
    lines = lines_of(await export(server, caller))
    event = json.loads(lines[4])
    event["body"] = event["body"].replace("thing.3", "thing.x")
    fork = "".join(sign_again([*lines[:4], line_of(**event), *lines[5:]], caller))
    cut = "".join(sign_again([*lines[:-3], lines[-1]], caller))
    longer = "".join(
        sign_again([*lines[:4], line_of(**event), *lines[5:-1], line_of(**event | {"sequence": 13}), lines[-1]], caller)
    )
    for rewritten in (fork, cut, longer):
        verify(rewritten, caller)  # it is signed, and nobody is asked
    with pytest.raises(Tampered, match="forked"):
        verify(fork, caller, seen)
    with pytest.raises(Tampered, match="forked"):
        verify(longer, caller, seen)
    with pytest.raises(Tampered, match="was cut"):
        verify(cut, caller, seen)
    notes = [json.loads(lines_of(each)[-1])["checkpoint"] for each in (fork, cut)]
    forked, shorter = (open_checkpoint(note, [key_of(caller)]) for note in notes)
    with pytest.raises(Tampered, match="forked"):
        verify_extends(seen, forked)
    with pytest.raises(Tampered, match="was cut"):
        verify_extends(seen, shorter)


async def test_a_thousand_changes_of_one_byte_are_all_detected(server: Server, caller: Caller) -> None:
    await fill(server, caller)
    bundle = (await export(server, caller)).encode()
    keys = [key_of(caller)]
    dice = random.Random(6962)
    missed = []
    for _ in range(1000):
        at, byte = dice.randrange(len(bundle)), dice.randrange(1, 256)
        changed = bytearray(bundle)
        changed[at] ^= byte
        try:
            # As a file is read: lines end with this byte alone.
            verify_bundle(io.BytesIO(bytes(changed)), keys)
            missed.append((at, byte))
        except Tampered:
            pass
    assert not missed


DATABASE_TAMPERINGS = {
    "edit an event": "UPDATE audit_events SET reason = 'x' WHERE action = 'thing.3'",
    "edit an actor": "UPDATE audit_events SET actor = 'users/x' WHERE action = 'thing.0'",
    "edit details": "UPDATE audit_events SET details = '{}' WHERE action = 'thing.3'",
    "edit a blank": "UPDATE audit_events SET details = (details::text || ' ')::json WHERE action = 'thing.3'",
    "edit a salt": "UPDATE audit_events SET salt = '\\x00' WHERE action = 'thing.3'",
    "delete an event": "DELETE FROM audit_events WHERE action = 'thing.3'",
    "delete a place": "DELETE FROM audit_positions WHERE sequence = 4",
    "delete the last place": "DELETE FROM audit_positions WHERE sequence = 12",
    "delete an event and its place": """
        WITH gone AS (DELETE FROM audit_events WHERE action = 'thing.3' RETURNING id)
        DELETE FROM audit_positions WHERE event_id IN (SELECT id FROM gone)""",
    "close the gap": """
        WITH gone AS (DELETE FROM audit_positions WHERE sequence = 12 RETURNING *)
        UPDATE audit_positions p SET event_id = g.event_id, created_at = g.created_at, commitment = g.commitment
        FROM gone g WHERE p.sequence = 4""",
    "swap two events": """
        UPDATE audit_events SET action = CASE action WHEN 'thing.3' THEN 'thing.4' ELSE 'thing.3' END
        WHERE action IN ('thing.3', 'thing.4')""",
    "edit a deleted event's commitment": """
        WITH gone AS (DELETE FROM audit_events WHERE action = 'thing.3' RETURNING id)
        UPDATE audit_positions SET commitment = sha256('x') WHERE event_id IN (SELECT id FROM gone)""",
    "forge a checkpoint": "UPDATE audit_checkpoints SET note = replace(note, '12', '11'), size = 11",
    "cut the tree": "UPDATE audit_checkpoints SET size = 11",
    "insert an event": """
        WITH new AS (
            INSERT INTO audit_events
            SELECT organization_id, created_at, gen_random_uuid(), category, 'thing.new', outcome, actor,
                on_behalf_of, api_key, method, resource, reason, request_id, peer, details FROM audit_events
            WHERE action = 'thing.3' RETURNING organization_id, id, created_at)
        UPDATE audit_positions p SET event_id = n.id, created_at = n.created_at FROM new n WHERE p.sequence = 4""",
}


@pytest.mark.parametrize("tampering", DATABASE_TAMPERINGS)
async def test_a_database_that_was_tampered_with_gives_no_bundle_that_verifies(
    server: Server, caller: Caller, tampering: str
) -> None:
    await fill(server, caller)
    await server.signer.close()
    await tamper(server, DATABASE_TAMPERINGS[tampering])
    with pytest.raises(Tampered):
        verify(await export(server, caller), caller, deleted_until=datetime(2020, 1, 1, tzinfo=UTC))


async def test_events_whose_places_were_swapped_do_not_verify(server: Server, caller: Caller) -> None:
    await fill(server, caller)
    await server.signer.close()
    async with server.database.system() as tx:
        sql = "SELECT sequence, event_id, created_at, commitment FROM audit_positions WHERE sequence IN (4, 5)"
        rows = await tx.fetch(sql)
        await tx.execute("UPDATE audit_positions SET event_id = gen_random_uuid() WHERE sequence IN (4, 5)")
        sql = "UPDATE audit_positions SET event_id = $2, created_at = $3, commitment = $4 WHERE sequence = $1"
        for row in rows:
            await tx.execute(sql, 9 - row["sequence"], row["event_id"], row["created_at"], row["commitment"])
    with pytest.raises(Tampered):
        verify(await export(server, caller), caller)


async def tamper(server: Server, sql: str) -> None:
    """Change the database as somebody who may do everything there."""
    async with server.database.system() as tx:
        await tx.execute(sql)


async def test_what_retention_deleted_is_told_and_allowed_until_a_time(server: Server, caller: Caller) -> None:
    await fill(server, caller)
    await tamper(server, "DELETE FROM audit_events WHERE action IN ('thing.3', 'thing.4')")
    bundle = await export(server, caller)
    with pytest.raises(Tampered, match="event 4 was deleted"):
        verify(bundle, caller)
    verified = verify(bundle, caller, deleted_until=datetime.now(UTC) + timedelta(minutes=1))
    assert (verified.deleted, verified.events) == (2, EVENTS)


async def test_json_lines_and_csv_are_of_what_matches(server: Server, caller: Caller, stranger: Caller) -> None:
    await fill(server, stranger, 1)
    await fill(server, caller)
    entry = AuditEntry("thing.last", '=HYPERLINK("x")', details={"a": 'b"\n,'})
    async with server.database.tenant(caller.tenant) as tx:
        await server.log.write(tx, caller, entry)
    await signed(server, caller, EVENTS + 1)
    lines = lines_of(await export(server, caller, ExportFormat.JSON_LINES, where='action = "thing.3"'))
    (event,) = map(json.loads, lines)
    assert (event["sequence"], event["action"], event["details"]) == (4, "thing.3", {"é": [3, 0.5]})
    assert UUID(event["organization"]) == caller.tenant.organization_id
    rows = list(csv.DictReader(io.StringIO(await export(server, caller, ExportFormat.CSV, after=EVENTS), newline="")))
    (row, *_) = rows
    assert (row["sequence"], row["action"], row["resource"]) == ("13", "thing.last", '\'=HYPERLINK("x")')
    assert json.loads(row["details"]) == {"a": 'b"\n,'}
    assert datetime.fromisoformat(row["time"]).tzinfo is not None
    with pytest.raises(InvalidArgument):
        await export(server, caller, ExportFormat.BUNDLE, where='action = "thing.3"')


async def test_an_export_goes_on_after_any_of_its_messages(server: Server, caller: Caller) -> None:
    details = {str(number): "x" * 900 for number in range(8)}
    for number in range(45):
        async with server.database.tenant(caller.tenant) as tx:
            await server.log.write(tx, caller, AuditEntry("thing.change", f"things/{number}", details=details))
    await signed(server, caller, 45)
    exporting = Exporting(server.database, server.log)
    where = 'action = "thing.change"'
    pieces = [piece async for piece in exporting.export(caller, ExportFormat.JSON_LINES, where, 0)]
    assert len(pieces) > 1
    whole = "".join(line for piece in pieces for line in piece.lines)
    for number, piece in enumerate(pieces, 1):
        rest = await export(server, caller, ExportFormat.JSON_LINES, after=piece.last_sequence, where=where)
        assert "".join(line for each in pieces[:number] for line in each.lines) + rest == whole


async def test_an_export_is_in_the_trail(server: Server, caller: Caller) -> None:
    await fill(server, caller, 1)
    await export(server, caller)
    await signed(server, caller, 2)
    last = json.loads(lines_of(await export(server, caller, ExportFormat.JSON_LINES, after=1))[0])
    assert (last["action"], last["category"], last["details"]["format"]) == ("audit.export", "compliance", "BUNDLE")
