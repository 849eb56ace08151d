"""`stationmaster credentials` against the real server."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import asyncpg
import pytest
from stationmaster.v1 import credential_pb2
from stationmaster_client import Client
from stationmaster_client.cli import credential_keys
from stationmaster_client.cli.command import Run
from stationmaster_client.cli.output import Output

from tests.client.cli.program import Program
from tests.client.cli.terminal import at_terminal
from tests.fixtures.server import RunningServer

SECRET = "correct-horse-battery-staple"


@pytest.fixture
def stationmaster(server: RunningServer, tmp_path: Path) -> Program:
    return Program(tmp_path, server.target, server.admin_key)


async def test_a_secret_is_stored_read_rotated_and_taken_away(stationmaster: Program, tmp_path: Path) -> None:
    file, other, out = tmp_path / "secret", tmp_path / "other", tmp_path / "out"
    file.write_text(SECRET + "\n")
    other.write_text("another one")
    own = ("credentials",)
    results = await stationmaster.many(
        [
            (*own, "create", "db", "--value-file", str(file), "--category", "api_keys", "--tag", "prod"),
            (*own, "create", "limit", "--setting", "3"),
            (*own, "list", "-f", "tags:prod"),
            (*own, "access", "db", "--purpose", "backup"),
            (*own, "access", "limit"),
            (*own, "rotate", "db", "--step", "begin", "--value-file", str(other)),
            (*own, "access", "db", "--label", "pending"),
            (*own, "rotate", "db", "--step", "passed"),
            (*own, "rotate", "db", "--step", "finish", "--grace", "2h"),
            (*own, "access", "db", "-o", str(out)),
            (*own, "versions", "db"),
            (*own, "add-version", "db", "--value-file", str(file), "--expires", "+90d"),
            (*own, "disable", "db", "1"),
            (*own, "destroy", "db", "1"),
            (*own, "update", "db", "--name", "The database"),
            (*own, "get", "db"),
            (*own, "delete", "db"),
            (*own, "undelete", "db"),
        ]
    )
    assert [result.code for result in results] == [0] * len(results), [r for r in results if r.code]
    assert "db" in results[2].out
    assert "limit" not in results[2].out
    assert results[3].out == SECRET
    assert results[4].out == "3\n"
    assert results[6].out == "another one"
    assert out.read_text() == "another one"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [line.split()[:3] for line in results[10].out.splitlines()[1:]] == [
        ["2", "enabled", "current"],
        ["1", "enabled", "previous"],
    ]
    assert "The database" in results[15].out
    assert not [r for place, r in enumerate(results) if place != 3 and SECRET in r.out + r.err]


async def test_grants_are_given_listed_and_revoked(stationmaster: Program, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    made = await stationmaster.many(
        [
            ("agents", "create", "helper", "--model", "demo"),
            ("credentials", "create", "db", "--value-file", str(file)),
            ("credentials", "grant", "db", "--to", "agents/helper", "--purpose", "model", "--json"),
            ("credentials", "grants", "db"),
            ("credentials", "grant", "db", "--to", "agents/nobody"),
        ]
    )
    assert [result.code for result in made] == [0, 0, 0, 0, 3]
    assert "agents/helper" in made[3].out
    revoked, listed = await stationmaster.many(
        [
            ("credentials", "revoke", "db", json.loads(made[2].out)["name"].rpartition("/")[2]),
            ("credentials", "grants", "db"),
        ]
    )
    assert revoked.code == 0
    assert "agents/helper" not in listed.out


async def test_a_refusal_names_options_of_the_command_line(stationmaster: Program) -> None:
    *_, finish = await stationmaster.many(
        [
            ("credentials", "create", "db", "--setting", "1"),
            ("credentials", "rotate", "db", "--setting", "2", "--step", "begin"),
            ("credentials", "rotate", "db", "--step", "finish"),
        ]
    )
    assert finish.code == 5
    assert "--untried" in finish.err
    assert "skip_trial" not in finish.err


async def test_grants_are_to_whom_people_name_and_revoked_by_it(stationmaster: Program) -> None:
    user = json.loads((await stationmaster("users", "create", "Ann", "--email", "ann@example.com", "--json")).out)
    short, grant = user["name"].rpartition("-")[2], ("credentials", "grant", "db", "--to")
    revoke = ("credentials", "revoke", "db")
    results = await stationmaster.many(
        [
            ("credentials", "create", "db", "--setting", "1"),
            (*grant, "ann@example.com", "--purpose", "backup", "--json"),
            (*revoke, "ann@example.com"),
            (*grant, short, "--json"),
            (*revoke, short),
            (*grant, f"users/{short}", "--json"),
            (*grant, "me", "--purpose", "x"),
            (*grant, "me", "--purpose", "y"),
            (*revoke, "me"),
            (*revoke, "bob@example.com"),
            (*revoke, "agents/nobody"),
            (*grant, "nobody@example.com"),
        ]
    )
    assert [each.code for each in results] == [0] * 8 + [2, 3, 3, 3], results
    assert {json.loads(results[place].out)["principal"] for place in (1, 3, 5)} == {user["name"]}
    assert "can mean any of these" in results[8].err
    assert "no grant of db" in results[10].err
    ending = json.loads(results[5].out)["name"][-6:]
    assert (await stationmaster(*revoke, ending)).code == 0


async def test_a_secret_comes_from_standard_input_and_never_from_an_argument(stationmaster: Program) -> None:
    made = await stationmaster("credentials", "create", "db", "--value-file", "-", stdin=SECRET + "\n")
    assert made.code == 0, made.err
    unasked = await stationmaster("credentials", "create", "other")
    assert unasked.code == 2
    assert "no terminal" in unasked.err
    argument = await stationmaster("credentials", "create", "other", SECRET)
    assert argument.code == 2
    read = await stationmaster("credentials", "access", "db")
    assert read.out == SECRET


async def test_a_value_that_would_not_be_stored_is_refused(stationmaster: Program, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    own = ("credentials", "create", "db")
    for value in (("--value-file", str(file)), ("--setting", "3")):
        for without in (("--empty",), ("--variable", "APP_TOKEN")):
            refused = await stationmaster(*own, *value, *without)
            assert refused.code == 2
            assert value[0] in refused.err
            assert without[0] in refused.err
    assert (await stationmaster("credentials", "get", "db")).code == 3


async def test_a_secret_that_is_typed_arrives_and_is_not_shown(stationmaster: Program) -> None:
    async with at_terminal(stationmaster, "credentials", "create", "db") as terminal:
        await terminal.see("secret (not shown): ")
        terminal.type(f"{SECRET}\n")
        await terminal.see("again: ")
        terminal.type(f"{SECRET}\n")
        assert await terminal.ended() == 0
        await terminal.see("credentials/db")
    assert SECRET not in terminal.raw
    assert (await stationmaster("credentials", "access", "db")).out == SECRET
    async with at_terminal(stationmaster, "credentials", "add-version", "db") as terminal:
        await terminal.see("secret (not shown): ")
        terminal.type("one\n")
        await terminal.see("again: ")
        terminal.type("another\n")
        await terminal.see("the two differ")
        assert await terminal.ended() == 2
    assert (await stationmaster("credentials", "access", "db")).out == SECRET


async def test_nothing_typed_is_no_secret(stationmaster: Program) -> None:
    async with at_terminal(stationmaster, "credentials", "create", "db") as terminal:
        await terminal.see("secret (not shown): ")
        terminal.type("\n")
        await terminal.see("--empty")
        assert await terminal.ended() == 2
    assert (await stationmaster("credentials", "get", "db")).code == 3
    assert (await stationmaster("credentials", "create", "db", "--empty")).code == 0


async def test_variables_are_imported_and_the_key_is_rotated(stationmaster: Program) -> None:
    variables = {"APP_DB_PASSWORD": SECRET, "APP_TOKEN": "a token"}
    done = await stationmaster("credentials", "import-environment", "APP_", "--strip-prefix", **variables)
    assert done.code == 0, done.err
    assert {"db-password", "token"} <= set(done.out.split())
    again = await stationmaster("credentials", "import-environment", "APP_", "--strip-prefix", **variables)
    assert "credentials/token is there already" in again.err
    before = json.loads((await stationmaster("credentials", "key-status", "--json")).out)
    mistyped = await stationmaster("credentials", "rotate-key", "nosuch")
    assert mistyped.code == 5
    assert f"it has {before['keys'][0]['keyId']}" in mistyped.err
    assert "--new" in mistyped.err
    rotated = await stationmaster("credentials", "rotate-key", "--wait", "--json")
    status = json.loads(rotated.out)
    assert status["rotation"]["state"] == "KEY_ROTATION_STATE_DONE"
    assert status["keys"][0]["keyId"] != before["keys"][0]["keyId"]
    retired = await stationmaster("credentials", "rotate-key", before["keys"][0]["keyId"], "--retire")
    assert retired.code == 0, retired.err
    assert (await stationmaster("credentials", "access", "db-password")).out == SECRET
    assert SECRET not in done.out + again.err + retired.out


async def test_the_last_value_of_a_credential_is_not_destroyed_by_one_line(
    stationmaster: Program, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    own = ("credentials",)
    only, _, current, _, old, kept = (
        await stationmaster.many(
            [
                (*own, "create", "db", "--value-file", str(file)),
                (*own, "destroy", "db", "1"),
                (*own, "add-version", "db", "--value-file", str(file)),
                (*own, "destroy", "db", "2"),
                (*own, "destroy", "db", "9"),
                (*own, "destroy", "db", "1"),
                (*own, "access", "db"),
            ]
        )
    )[1:]
    assert [only.code, current.code, old.code, kept.code] == [2, 2, 0, 0], (only, current, old)
    assert "the only one that has a value" in only.err
    assert "the current one" in current.err
    assert "--yes" in current.err
    async with at_terminal(stationmaster, *own, "destroy", "db", "2") as terminal:
        await terminal.see("the only one that has a value")
        await terminal.see("Go on? [y/N] ")
        terminal.type("\n")
        assert await terminal.ended() == 130
    assert (await stationmaster(*own, "access", "db")).out == SECRET
    async with at_terminal(stationmaster, *own, "destroy", "db", "2") as terminal:
        await terminal.see("Go on? [y/N] ")
        terminal.type("y\n")
        assert await terminal.ended() == 0
    assert (await stationmaster(*own, "add-version", "db", "--value-file", str(file))).code == 0
    assert (await stationmaster(*own, "destroy", "db", "3", "--yes")).code == 0


async def test_waiting_for_a_rotation_ends_when_a_damaged_version_is_left(
    server: RunningServer, administrator_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential_keys, "_STUCK_LOOKS", 3)
    async with Client.connect(server.target, server.admin_key, insecure=True) as client:
        for name in ("whole", "damaged"):
            await client.credentials.create(name, SECRET)
        connection = await asyncpg.connect(administrator_url)
        await connection.execute(
            """UPDATE credential_versions v SET wrapped_key = decode(repeat('00', length(v.wrapped_key)), 'hex')
               FROM credentials c WHERE c.uid = v.uid AND c.credential_id = 'damaged'"""
        )
        await connection.close()
        status = await client.credentials.rotate_key()
        run = Run(client, Output(as_json=True))
        left = await credential_keys._until_done(run, status)
        assert (left.rotation.state, left.rotation.remaining) == (credential_pb2.KEY_ROTATION_STATE_RUNNING, 1)
        await client.credentials.destroy_version("damaged", 1)
        done = await credential_keys._until_done(run, await client.credentials.rotate_key())
        assert done.rotation.state == credential_pb2.KEY_ROTATION_STATE_DONE
