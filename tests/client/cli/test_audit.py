"""`stationmaster audit` against the real server, and without any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stationmaster_server.audit import notes

from tests.audit.test_notes import cosignature
from tests.client.cli.program import Program
from tests.fixtures.server import RunningServer
from tests.waiting import until

VECTORS = Path(__file__).parents[3] / "docs" / "vectors"


@pytest.fixture
def stationmaster(server: RunningServer, tmp_path: Path) -> Program:
    return Program(tmp_path, server.target, server.admin_key)


async def test_a_trail_is_exported_and_verified_offline(stationmaster: Program, tmp_path: Path) -> None:
    recorded = await stationmaster("audit", "record", "custom.invoice.approve", "invoices/7", "--detail", "sum=3")
    assert (recorded.code, recorded.out.startswith("auditEvents/")) == (0, True), recorded.err

    async def signed() -> bool:
        shown = await stationmaster("audit", "stats", "--json")
        return int(json.loads(shown.out)["checkpointSize"]) >= 2

    await until(signed)
    bundle, old, key = (str(tmp_path / name) for name in ("trail.bundle", "old.checkpoint", "log.key"))
    keys, checkpoint, exported, refused = await stationmaster.many(
        [
            ["audit", "key"],
            ["audit", "checkpoint"],
            ["audit", "export", "-o", bundle],
            ["audit", "export", "-o", bundle],
        ]
    )
    assert [each.code for each in (keys, checkpoint, exported, refused)] == [0, 0, 0, 2]
    Path(key).write_text(keys.out)  # noqa: ASYNC240 - a test
    Path(old).write_text(checkpoint.out)  # noqa: ASYNC240
    alone = Program(tmp_path / "elsewhere")  # knows no server, and has no key of one
    right, as_json, against, wrong_key, no_file, no_witness = await alone.many(
        [
            ["audit", "verify", bundle, "--key", keys.out.strip()],
            ["audit", "verify", bundle, "--key", key, "--json"],
            ["audit", "verify", bundle, "--key", key, "--previous", old],
            [
                "audit",
                "verify",
                bundle,
                "--key",
                "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            ],
            ["audit", "verify", f"{bundle}x", "--key", key],
            ["audit", "verify", bundle, "--key", key, "--witness", keys.out.strip().replace("stationmaster", "other")],
        ]
    )
    assert [each.code for each in (right, as_json, against)] == [0, 0, 0], right.err
    assert "nothing was changed, left out or put in" in right.out
    assert "could have signed another trail" in right.err
    assert json.loads(as_json.out)["events"] >= 2
    assert "goes on from" in against.out
    assert (wrong_key.code, "does not verify" in wrong_key.err) == (1, True)
    assert (no_file.code, no_witness.code) == (2, 2)
    text = Path(bundle).read_text().replace("invoices/7", "invoices/8")  # noqa: ASYNC240
    tampered = await alone("audit", "verify", "-", "--key", key, stdin=text)
    assert (tampered.code, tampered.out) == (1, "")
    assert "are not those that the checkpoint was signed over" in tampered.err


async def test_only_the_witness_that_is_asked_for_counts(tmp_path: Path) -> None:
    name = "witness.example/w1"
    right, other = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2))
    keys = [notes.VerifierKey(name, notes.COSIGNATURE, each.public_key().public_bytes_raw()) for each in (right, other)]
    *lines, last = (VECTORS / "audit.bundle").read_text().splitlines(keepends=True)
    note = json.loads(last)["checkpoint"]
    note += cosignature(note, keys[1], other, 1_800_000_000)
    bundle, log, with_a_witness, empty = (
        tmp_path / each for each in ("cosigned.bundle", "log.key", "both.key", "none")
    )
    bundle.write_text(
        "".join([*lines, json.dumps({"checkpoint": note}, ensure_ascii=False, separators=(",", ":"))]) + "\n"
    )
    log.write_text((VECTORS / "audit.key").read_text())
    with_a_witness.write_text(f"{log.read_text()}{keys[1]}\n")
    empty.write_text("\n")
    verify = ["audit", "verify", str(bundle), "--deleted-until", "2025-01-01", "--key"]
    cosigned, another, brought, nobody, itself = await Program(tmp_path / "elsewhere").many(
        [
            [*verify, str(log), "--witness", str(keys[1])],
            [*verify, str(log), "--witness", str(keys[0])],
            [*verify, str(with_a_witness), "--witness", str(keys[0])],
            [*verify, str(log), "--witness", str(empty)],
            [*verify, str(log), "--witness", str(log)],
        ]
    )
    assert (cosigned.code, f"{name} at 2027-01-15" in cosigned.out) == (0, True), cosigned.err
    assert (another.code, f"no cosignature by {name}" in another.err) == (1, True)
    assert (brought.code, "give it with --witness" in brought.err) == (2, True)
    assert (nobody.code, "there is no key in" in nobody.err) == (2, True)
    assert (itself.code, "is a log's key" in itself.err) == (2, True)


async def test_events_are_searched_counted_and_exported(stationmaster: Program) -> None:
    mine = ["audit", "record", "custom.door.open", 'doors/"1"', "--outcome", "denied", "--category", "security"]
    assert (await stationmaster(*mine)).code == 0

    async def signed() -> bool:
        shown = await stationmaster("audit", "export", "--format", "jsonl")
        return "custom.door.open" in shown.out

    await until(signed)
    csv = await stationmaster("audit", "export", "--format", "csv", "-f", 'action = "custom.door.open"')
    (
        found,
        none,
        counted,
        table,
        wrong,
        wrong_time,
        wrong_action,
        wrong_category,
        wrong_outcome,
        of_late,
    ) = await stationmaster.many(
        [
            ["audit", "search", "--action", "custom.door.open", "--outcome", "denied", "--resource", 'doors/"1"'],
            ["audit", "search", "--since", "2020-01-01", "--until", "2020-02-01"],
            ["audit", "stats"],
            ["audit", "search", "--category", "security", "--since", "2020-01-01T00:00+01:00", "--json"],
            ["audit", "export", "--format", "pdf"],
            ["audit", "search", "--since", "yesterday"],
            ["audit", "record", "session.create"],
            ["audit", "record", "custom.sale", "--category", "money"],
            ["audit", "record", "custom.sale", "--outcome", "maybe"],
            ["audit", "search", "--since", "-1h", "--action", "custom.door.open"],
        ]
    )
    assert [each.code for each in (found, none, counted, table, csv)] == [0] * 5
    assert "custom.door.open" in found.out
    assert "custom.door.open" in of_late.out
    assert "No events." in none.err
    assert "custom.door.open" in counted.out
    assert any(event["action"] == "custom.door.open" for event in json.loads(table.out)["auditEvents"])
    assert len(csv.out.splitlines()) == 2
    assert [each.code for each in (wrong, wrong_time, wrong_action, wrong_category, wrong_outcome)] == [2] * 5
    assert "custom. and one to four words" in wrong_action.err
    assert "custom.invoice.approve" in wrong_action.err
    assert not any(letter in wrong_action.err for letter in "^{$")
    assert "--category money: write business, security or compliance" in wrong_category.err
    assert "--outcome maybe: write allowed, denied or failed" in wrong_outcome.err


async def test_who_is_searched_for_may_be_named_as_elsewhere(stationmaster: Program) -> None:
    made = await stationmaster("users", "create", "Ann", "--email", "ann@example.com", "--json")
    user = json.loads(made.out)["name"]
    key = json.loads((await stationmaster("keys", "create", "hers", "--user", "ann@example.com", "--json")).out)
    ann = Program(stationmaster.home, stationmaster.target, key["secret"])
    assert (await ann("audit", "stats")).code == 4
    short = user.rpartition("-")[2]
    found = await stationmaster.many(
        [
            *(["audit", "search", "--actor", name, "--json"] for name in (user, "ann@example.com", short)),
            ["audit", "search", "--actor", f"users/{short}", "-f", "outcome = DENIED", "--json"],
            ["audit", "search", "--resource", f"users/{short}", "--json"],
            ["audit", "search", "--actor", "ann@example.com", "-f", "outcome = FAILED OR outcome = ALLOWED"],
            *(["audit", "search", "--actor", name] for name in ("system", "bob@example.com", "users/00bad0", "xx")),
        ]
    )
    for each in found[:4]:
        events = json.loads(each.out)["auditEvents"]
        assert {event["actor"] for event in events} == {user}, each.err
    assert "user.create" in {event["action"] for event in json.loads(found[4].out)["auditEvents"]}
    assert "No events" in found[5].out + found[5].err
    assert [each.code for each in found] == [0, 0, 0, 0, 0, 0, 0, 3, 3, 2]
    assert "no user has the email address 'bob@example.com'" in found[7].err
