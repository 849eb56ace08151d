"""Somebody who can write to the database: what was swapped, moved, cut or relabelled is refused, and said to be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio
from stationmaster_server.credentials.model import Value
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import FailedPrecondition, Reason, StationmasterError

from tests.credentials.room import Room, caller_of, trail
from tests.fixtures.database import make_tenant

if TYPE_CHECKING:
    Saboteur = asyncpg.Connection[asyncpg.Record]
else:
    Saboteur = asyncpg.Connection


@pytest_asyncio.fixture
async def saboteur(administrator_url: str) -> AsyncIterator[Saboteur]:
    """Whom no policy holds."""
    connection = await asyncpg.connect(administrator_url)
    yield connection
    await connection.close()


SWAPS = {
    "the ciphertext of another version": """
        UPDATE credential_versions v SET ciphertext = o.ciphertext FROM credential_versions o
        WHERE v.version = 2 AND o.version = 1 AND o.uid = v.uid""",
    "the whole content of another version": """
        UPDATE credential_versions v SET ciphertext = o.ciphertext, wrapped_key = o.wrapped_key
        FROM credential_versions o WHERE v.version = 2 AND o.version = 1 AND o.uid = v.uid""",
    "the whole content of another credential": """
        UPDATE credential_versions v SET ciphertext = o.ciphertext, wrapped_key = o.wrapped_key
        FROM credential_versions o JOIN credentials c ON c.uid = o.uid
        WHERE v.version = 2 AND c.credential_id = 'other'""",
    "a value that is cut": "UPDATE credential_versions SET ciphertext = substring(ciphertext FROM 1 FOR 20)",
    "a value that is nothing": r"UPDATE credential_versions SET ciphertext = '\x'",
    "a key that is cut": "UPDATE credential_versions SET wrapped_key = substring(wrapped_key FROM 1 FOR 12)",
    "an older format": "UPDATE credential_versions SET format = 0",
    "a value that is gone": "UPDATE credential_versions SET ciphertext = NULL",
    "another uid": """
        UPDATE credential_versions v SET uid = o.uid FROM credentials o WHERE o.credential_id = 'empty' AND v.uid =
            (SELECT uid FROM credentials WHERE credential_id = 'db');
        UPDATE credentials SET current_version = 2, last_version = 2 WHERE credential_id = 'empty'""",
}


@pytest.mark.parametrize("swap", SWAPS)
async def test_what_was_swapped_moved_or_cut_is_refused(
    room: Room, owner: Caller, tenant: Tenant, saboteur: Saboteur, swap: str
) -> None:
    await room.create(owner, "db", "one")
    await room.versions.add(owner, "db", Value("two"))
    await room.create(owner, "other", "theirs")
    await room.create(owner, "empty")
    await saboteur.execute(SWAPS[swap])
    with pytest.raises(FailedPrecondition) as refused:
        await room.read(owner, "empty" if swap == "another uid" else "db")
    assert refused.value.reason is Reason.CREDENTIAL_DAMAGED
    told = await trail(room.database, tenant, "credential.access")
    assert [(event["outcome"], event["reason"]) for event in told] == [("failed", "CREDENTIAL_DAMAGED")]


async def test_a_row_of_another_organization_does_not_open(
    room: Room, owner: Caller, database: Database, saboteur: Saboteur
) -> None:
    await room.create(owner, "db", "one")
    thief = caller_of(await make_tenant(database))
    await room.create(thief, "mine")
    await saboteur.execute(
        """INSERT INTO credential_versions (organization_id, uid, version, state, format, ciphertext, wrapped_key,
               key_id, creator_id)
           SELECT mine.organization_id, mine.uid, 1, 'ENABLED', v.format, v.ciphertext, v.wrapped_key, v.key_id,
               v.creator_id
           FROM credential_versions v, credentials mine WHERE mine.credential_id = 'mine'"""
    )
    await saboteur.execute("UPDATE credentials SET current_version = 1 WHERE credential_id = 'mine'")
    with pytest.raises(FailedPrecondition) as refused:
        await room.read(thief, "mine")
    assert refused.value.reason is Reason.CREDENTIAL_DAMAGED


async def test_another_key_id_is_refused_by_the_database_or_does_not_open(
    room: Room, owner: Caller, saboteur: Saboteur
) -> None:
    await room.create(owner, "db", "one")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await saboteur.execute("UPDATE credential_versions SET key_id = 'nothing'")
    old = room.keyring.primary
    await room.keys.start(owner, "")
    await room.rewrapper.run()
    await saboteur.execute("UPDATE credential_versions SET key_id = $1", old)
    with pytest.raises(FailedPrecondition) as refused:
        await room.read(owner, "db")
    assert refused.value.reason is Reason.CREDENTIAL_DAMAGED


async def test_a_secret_that_is_declared_a_setting_is_not_handed_out_as_a_secret(
    room: Room, owner: Caller, saboteur: Saboteur
) -> None:
    await room.create(owner, "db", "one")
    await saboteur.execute("""UPDATE credential_versions SET plain = '"planted"'""")
    assert await room.read(owner, "db") == "one"
    await saboteur.execute("UPDATE credentials SET encrypted = false")
    assert await room.read(owner, "db") == ""


async def test_a_damaged_version_stops_no_rotation_of_the_others(room: Room, owner: Caller, saboteur: Saboteur) -> None:
    for number in range(3):
        await room.create(owner, f"c{number}", f"secret {number}")
    await saboteur.execute(
        r"""UPDATE credential_versions SET wrapped_key = '\x00' WHERE uid =
            (SELECT uid FROM credentials WHERE credential_id = 'c1')"""
    )
    await room.keys.start(owner, "")
    await room.rewrapper.run()
    await room.rewrapper.run()
    status = await room.keys.status(owner)
    assert status.rotation is not None
    assert status.rotation.remaining == 1
    assert "do not open" in status.warnings[0]
    assert [await room.read(owner, one) for one in ("c0", "c2")] == ["secret 0", "secret 2"]
    with pytest.raises(StationmasterError):
        await room.read(owner, "c1")


async def test_a_foreign_key_file_in_place_of_ours_is_noticed(room: Room, owner: Caller, tmp_path: Path) -> None:
    await room.create(owner, "db", "one")
    file = tmp_path / "credentials.keys"
    kept = file.read_text()
    key_id = kept.partition(":")[0]
    file.write_text(f"{key_id}:{'A' * 43}=\n")
    assert "not the one" in await room.keyring.refresh()
    with pytest.raises(StationmasterError) as refused:
        await room.read(owner, "db")
    assert refused.value.reason is Reason.ENCRYPTION_KEY_UNAVAILABLE
    file.write_text(kept)
    assert await room.keyring.refresh() == ""
    assert await room.read(owner, "db") == "one"
