"""The keys of a server: first start, wrong ones, missing ones, and where they come from."""

from __future__ import annotations

import asyncio
import resource
import stat
from base64 import b64encode
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest
from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.envelope import KeyEncryptionKey
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import StoredKey, Value
from stationmaster_server.credentials.providers.base import KeysUnreadable, NewKey
from stationmaster_server.credentials.providers.environment import EnvironmentKeys
from stationmaster_server.credentials.providers.file import FileKeys
from stationmaster_server.credentials.providers.passphrase import PassphraseKeys
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import FailedPrecondition, Reason, Unavailable

from tests.credentials.room import file_keys, make_room


def text_of(**keys: int) -> str:
    """Keys as the settings have them: each of one byte, repeated."""
    return ",".join(f"{key_id}:{b64encode(bytes([byte]) * 32).decode()}" for key_id, byte in keys.items())


async def dump(database: Database) -> list[object]:
    """All that the tables of credentials hold."""
    tables = ("credential_keys", "credentials", "credential_versions", "credential_grants", "credential_retired_keys")
    async with database.system(autocommit=True) as tx:
        return [[tuple(row) for row in await tx.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")] for table in tables]


async def test_the_first_start_makes_a_key_file_for_the_server_alone(database: Database, tmp_path: Path) -> None:
    rings = [Keyring(database, file_keys(tmp_path)) for _ in range(3)]
    assert set(await asyncio.gather(*(ring.refresh() for ring in rings))) == {""}
    assert len({ring.primary for ring in rings}) == 1
    file = tmp_path / "credentials.keys"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    assert "chmod 600" in await Keyring(database, file_keys(tmp_path)).refresh()


async def test_a_wrong_key_is_told_and_nothing_is_overwritten(
    database: Database, tmp_path: Path, owner: Caller
) -> None:
    right, wrong = EnvironmentKeys(text_of(a=1)), EnvironmentKeys(text_of(a=2))
    room = await make_room(database, [right])
    await room.create(owner, "db", "the secret")
    before = await dump(database)
    broken = await make_room(database, [wrong, *file_keys(tmp_path)])
    assert "'a'" in broken.keyring.problem
    assert "not the one" in broken.keyring.problem
    for attempt in (broken.read(owner, "db"), broken.create(owner, "other", "x"), broken.keys.start(owner, "b")):
        with pytest.raises(Unavailable) as refused:
            await attempt
        assert refused.value.reason is Reason.ENCRYPTION_KEY_UNAVAILABLE
    assert await broken.rewrapper.run() == 0
    assert await dump(database) == before
    assert not (tmp_path / "credentials.keys").exists()
    assert await room.read(owner, "db") == "the secret"
    await broken.close()
    await room.close()


async def test_a_missing_key_is_told_and_no_new_one_is_made(database: Database, tmp_path: Path, owner: Caller) -> None:
    room = await make_room(database, file_keys(tmp_path))
    await room.create(owner, "db", "the secret")
    before = await dump(database)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    lost = await make_room(database, file_keys(elsewhere))
    assert "is missing" in lost.keyring.problem
    assert not list(elsewhere.iterdir())
    assert await dump(database) == before
    (elsewhere / "credentials.keys").write_bytes((tmp_path / "credentials.keys").read_bytes())
    (elsewhere / "credentials.keys").chmod(0o600)
    assert await lost.keyring.refresh() == ""
    assert await lost.read(owner, "db") == "the secret"
    await lost.close()
    await room.close()


async def test_without_any_key_the_service_says_what_to_configure(database: Database, tmp_path: Path) -> None:
    ring = Keyring(database, file_keys(tmp_path, make=False))
    assert "credentials.keys" in await ring.refresh()
    with pytest.raises(Unavailable):
        await ring.reserve()


async def test_a_passphrase_is_a_key_and_another_one_is_a_wrong_key(database: Database, owner: Caller) -> None:
    room = await make_room(database, [PassphraseKeys("correct horse", "passphrase")])
    await room.create(owner, "db", "the secret")
    again = await make_room(database, [PassphraseKeys("correct horse", "passphrase")])
    assert await again.read(owner, "db") == "the secret"
    other = await make_room(database, [PassphraseKeys("battery staple", "passphrase")])
    assert "not the one" in other.keyring.problem
    for one in (room, again, other):
        await one.close()


async def test_what_is_no_key_is_told_without_the_key(tmp_path: Path) -> None:
    secret = b64encode(b"0123456789abcdef").decode()
    file = tmp_path / "keys"
    file.touch(0o600)
    for text in (f"a:{secret}", secret, f"A!:{secret}", f"{text_of(a=1)}\n{text_of(a=2)}"):
        file.write_text(text)
        for provider in (FileKeys(file, make=False), EnvironmentKeys(text.replace("\n", ","))):
            with pytest.raises(KeysUnreadable) as told:
                await provider.keys([])
            assert secret not in str(told.value)


async def test_wraps_are_counted_before_they_are_made(database: Database, tmp_path: Path, owner: Caller) -> None:
    room = await make_room(database, file_keys(tmp_path))
    for number in range(3):
        await room.create(owner, f"c{number}", "x")
    (key,) = (await room.keys.status(owner)).keys
    assert (key.versions, key.present, key.primary) == (3, True, True)
    assert 3 <= key.wraps <= 256
    async with database.system() as tx:
        await tx.execute("UPDATE credential_keys SET wraps = 4294967296")
    room.keyring._reserved = 0
    with pytest.raises(Exception, match="rotate it"):
        await room.create(owner, "one-more", "x")
    assert "rotate it" in (await room.keys.status(owner)).warnings[0]
    await room.close()


async def test_a_key_file_without_an_end_of_line_keeps_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.touch(0o600)
    file.write_text(text_of(k1=1))
    made = await FileKeys(file, make=True).make("k2", ["k1"])
    assert made is not None
    assert await FileKeys(file, make=False).keys([]) == {"k1": bytes([1]) * 32, "k2": made.key}


async def test_a_disk_that_is_full_leaves_the_key_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.touch(0o600)
    file.write_text(text_of(k1=1))
    before, (soft, hard) = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    provider = FileKeys(file, make=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        with pytest.raises(KeysUnreadable, match="cannot be written"):
            await provider.make("k2", ["k1"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before


async def test_servers_that_add_a_key_of_one_id_at_once_agree_on_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    made = await asyncio.gather(*(FileKeys(file, make=True).make("k1", ()) for _ in range(5)))
    assert len({new.key for new in made if new is not None}) == 1
    assert list(await FileKeys(file, make=False).keys([])) == ["k1"]


class Counted(EnvironmentKeys):
    """Keys of the settings that count how often they were asked for."""

    asked = 0

    async def keys(self, stored: Sequence[StoredKey]) -> Mapping[str, bytes]:
        self.asked += 1
        return await super().keys(stored)


async def test_reads_that_want_a_missing_key_do_not_have_it_looked_for_each_time(
    database: Database, owner: Caller
) -> None:
    room = await make_room(database, [EnvironmentKeys(text_of(a=1))])
    await room.create(owner, "db", "the secret")
    provider = Counted("")
    keyless = await make_room(database, [provider])
    asked = provider.asked
    for _ in range(5):
        with pytest.raises(Unavailable):
            await keyless.read(owner, "db")
    assert provider.asked == asked
    for one in (room, keyless):
        await one.close()


class Forgetful(FileKeys):
    """Makes keys that it cannot read: a key service that may encrypt alone, a disk that is gone after a restart."""

    async def make(self, key_id: str, known: Collection[str], *, new: bool = True) -> NewKey | None:
        return NewKey(self.name, key_id or "new", bytes([7]) * 32, b"")


async def test_a_key_that_cannot_be_read_back_never_becomes_the_primary_one(
    database: Database, tmp_path: Path, owner: Caller
) -> None:
    room = await make_room(database, file_keys(tmp_path))
    await room.create(owner, "db", "the secret")
    before = await dump(database)
    forgetful = await make_room(database, [Forgetful(tmp_path / "credentials.keys", make=True)])
    with pytest.raises(FailedPrecondition, match="not there when it is read") as refused:
        await forgetful.keys.start(owner, "")
    assert refused.value.reason is Reason.ROTATION_NOT_READY
    assert await dump(database) == before
    assert await forgetful.read(owner, "db") == "the secret"
    await forgetful.close()
    await room.close()


async def lose_primary(database: Database) -> KeyEncryptionKey:
    """A primary key that no server has."""
    key = KeyEncryptionKey("lost", bytes([9]) * 32)
    async with database.system() as tx:
        await key_store.insert(tx, "lost", "environment", key.make_canary(), b"")
        await key_store.make_primary(tx, "lost")
    return key


async def test_while_the_primary_key_is_missing_values_are_read_and_there_is_a_way_back(
    database: Database, owner: Caller
) -> None:
    room = await make_room(database, [EnvironmentKeys(text_of(a=1))])
    await room.create(owner, "db", "the secret")
    await lose_primary(database)
    assert await room.keyring.refresh() == ""
    assert "'lost' is missing" in (await room.keys.status(owner)).warnings[0]
    assert await room.read(owner, "db") == "the secret"
    with pytest.raises(Unavailable):
        await room.create(owner, "other", "x")
    assert await room.rewrapper.run() == 0
    started = await make_room(database, [EnvironmentKeys(text_of(a=1))])
    assert await started.read(owner, "db") == "the secret"
    await started.keys.start(owner, "a")
    await started.create(owner, "other", "x")
    assert (await started.keys.status(owner)).warnings == ()
    await room.keyring.refresh()
    assert await room.read(owner, "other") == "x"
    for one in (room, started):
        await one.close()


async def test_another_key_under_the_id_of_one_that_wraps_nothing_takes_nothing_away(
    database: Database, owner: Caller
) -> None:
    room = await make_room(database, [EnvironmentKeys(text_of(a=1, b=2))], active="a")
    await room.create(owner, "db", "the secret")
    other = await make_room(database, [EnvironmentKeys(text_of(a=1, b=3))], active="a")
    async with database.system() as tx:
        canary = KeyEncryptionKey("b", bytes([2]) * 32).make_canary()
        await key_store.insert(tx, "b", "environment", canary, b"")
    assert await other.keyring.refresh() == ""
    assert "'b' that this server was given is not the one" in other.keyring.warning
    assert other.keyring.present == {"a"}
    await other.versions.add(owner, "db", Value("another"))
    assert await other.read(owner, "db") == "another"
    for one in (room, other):
        await one.close()


async def test_a_missing_key_that_wraps_something_takes_nothing_else_with_it(database: Database, owner: Caller) -> None:
    room = await make_room(database, [EnvironmentKeys(text_of(a=1))])
    await room.create(owner, "db", "the secret")
    await room.create(owner, "gone", "lost")
    lost = await lose_primary(database)
    async with database.system() as tx:
        await tx.execute(
            """UPDATE credential_versions SET key_id = $1
               WHERE uid = (SELECT uid FROM credentials WHERE credential_id = 'gone')""",
            lost.key_id,
        )
    assert "'lost' is missing" in await room.keyring.refresh()
    assert await room.read(owner, "db") == "the secret"
    with pytest.raises(Unavailable):
        await room.read(owner, "gone")
    with pytest.raises(Unavailable):
        await room.keys.start(owner, "")
    await room.keys.start(owner, "a")
    async with database.system(autocommit=True) as tx:
        assert await tx.fetchval("SELECT key_id FROM credential_keys WHERE is_primary") == "a"
    await room.close()


async def test_a_passing_fault_of_a_provider_takes_no_key_out_of_memory(
    database: Database, tmp_path: Path, owner: Caller
) -> None:
    room = await make_room(database, file_keys(tmp_path))
    await room.create(owner, "db", "the secret")
    file = tmp_path / "credentials.keys"
    for told in ("chmod 600", "no longer given"):
        if told == "chmod 600":
            file.chmod(0o640)
        else:
            file.rename(tmp_path / "away")
        assert await room.keyring.refresh() == ""
        (warning,) = (await room.keys.status(owner)).warnings
        assert told in warning
        assert await room.read(owner, "db") == "the secret"
        await room.versions.add(owner, "db", Value("the secret"))
        with pytest.raises(FailedPrecondition, match="not on this server"):
            await room.keys.start(owner, room.keyring.primary)
    (tmp_path / "away").rename(file)
    file.chmod(0o600)
    assert await room.keyring.refresh() == ""
    assert (await room.keys.status(owner)).warnings == ()
    await room.close()


async def test_a_provider_that_fails_does_not_matter_where_others_have_what_is_needed(
    database: Database, tmp_path: Path, owner: Caller
) -> None:
    file = tmp_path / "credentials.keys"
    file.write_text(text_of(z=3))
    file.chmod(0o644)
    room = await make_room(database, [EnvironmentKeys(text_of(a=1)), *file_keys(tmp_path)])
    await room.create(owner, "db", "the secret")
    assert "chmod 600" in room.keyring.warning
    assert await room.read(owner, "db") == "the secret"
    await room.close()
