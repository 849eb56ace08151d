"""Changing the encryption key: resumable, complete, and nothing lost whenever it is cut."""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from stationmaster_server.credentials import key_store
from stationmaster_server.credentials.envelope import KeyEncryptionKey, Place, Sealed
from stationmaster_server.credentials.keyring import Keyring
from stationmaster_server.credentials.model import KeyStatus, RotationState, Value
from stationmaster_server.credentials.providers.environment import EnvironmentKeys
from stationmaster_server.credentials.rewrap import Rewrapper
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.errors import FailedPrecondition, PermissionDenied, Reason, StationmasterError

from tests.credentials.room import Room, caller_of, file_keys, make_room
from tests.waiting import until

ROOT = Path(__file__).parents[2]
MANY = 10_000
TEXT = ",".join(f"{name}:{b64encode(bytes([byte]) * 32).decode()}" for name, byte in (("a", 1), ("b", 2)))
OLD = TEXT.partition(",")[0]


class Cut(Exception):
    """Stands for the end of a process."""


async def fill(database: Database, caller: Caller, count: int) -> None:
    """So many versions under key `a`, of as many credentials; each holds its own number."""
    key, organization_id = KeyEncryptionKey("a", bytes([1]) * 32), caller.tenant.organization_id
    uids = [new_id() for _ in range(count)]
    sealed = [key.seal(Place(organization_id, uid, 1), str(number).encode()) for number, uid in enumerate(uids)]
    async with database.system() as tx:
        await tx.execute(
            """INSERT INTO credentials (organization_id, credential_id, uid, owner_id, display_name, description,
                   category, tags, encrypted, environment_variable, last_version, current_version, etag)
               SELECT $1, 'c' || number, uid, $2, '', '', '', '[]', true, '', 1, 1, 'e'
               FROM unnest($3::uuid[], $4::int[]) AS t(uid, number)""",
            organization_id,
            caller.tenant.user_id,
            uids,
            list(range(count)),
        )
        await tx.execute(
            """INSERT INTO credential_versions (organization_id, uid, version, state, format, ciphertext, wrapped_key,
                   key_id, creator_id)
               SELECT $1, uid, 1, 'ENABLED', 1, ciphertext, wrapped_key, 'a', $2
               FROM unnest($3::uuid[], $4::bytea[], $5::bytea[]) AS t(uid, ciphertext, wrapped_key)""",
            organization_id,
            caller.tenant.user_id,
            uids,
            [one.ciphertext for one in sealed],
            [one.wrapped_key for one in sealed],
        )


async def check_all(room: Room, caller: Caller, count: int, key_id: str) -> None:
    """Every version opens, holds its own number, and is wrapped by this key."""
    async with room.database.system(autocommit=True) as tx:
        rows = await tx.fetch(
            """SELECT c.credential_id, c.uid, v.ciphertext, v.wrapped_key, v.key_id
               FROM credentials c JOIN credential_versions v USING (organization_id, uid)"""
        )
    assert len(rows) == count
    for row in rows:
        assert row["key_id"] == key_id
        sealed = Sealed(row["ciphertext"], row["wrapped_key"], row["key_id"])
        place = Place(caller.tenant.organization_id, row["uid"], 1)
        assert room.keyring.key(key_id).open(place, sealed).decode() == row["credential_id"][1:]


async def status_once(room: Room, caller: Caller, state: RotationState) -> KeyStatus:
    """The status, once the rotation is so."""

    async def there() -> bool:
        rotation = (await room.keys.status(caller)).rotation
        return rotation is not None and rotation.state is state

    await until(there, seconds=60)
    return await room.keys.status(caller)


async def test_a_rotation_wraps_everything_anew_and_the_old_key_is_retired(
    database: Database, tmp_path: Path, owner: Caller
) -> None:
    room = await make_room(database, file_keys(tmp_path), batch=2)
    old = room.keyring.primary
    for number in range(5):
        await room.create(owner, f"c{number}", f"secret {number}")
    with pytest.raises(FailedPrecondition) as in_use:
        await room.keys.retire(owner, old)
    assert in_use.value.reason is Reason.ENCRYPTION_KEY_IN_USE
    started = await room.keys.start(owner, "")
    assert started.rotation is not None
    assert (started.rotation.total, started.rotation.remaining) == (5, 5)
    done = await status_once(room, owner, RotationState.DONE)
    assert done.rotation is not None
    assert (done.rotation.done, done.rotation.remaining) == (5, 0)
    new = room.keyring.primary
    assert new != old
    assert [await room.read(owner, f"c{number}") for number in range(5)] == [f"secret {number}" for number in range(5)]
    with pytest.raises(FailedPrecondition):
        await room.keys.retire(owner, new)
    retired = await room.keys.retire(owner, old)
    assert [(key.key_id, key.retired_at is not None) for key in retired.keys] == [(new, False), (old, True)]
    with pytest.raises(FailedPrecondition, match="retired"):
        await room.keys.start(owner, old)
    assert await room.read(owner, "c0") == "secret 0"
    await room.close()


async def test_a_key_that_is_retired_wraps_nothing_more_even_on_a_server_that_did_not_hear(
    database: Database, owner: Caller
) -> None:
    late = await make_room(database, [EnvironmentKeys(TEXT)], active="a")
    room = await make_room(database, [EnvironmentKeys(TEXT)])
    await late.create(owner, "c0", "x")
    await room.keys.start(owner, "b")
    await status_once(room, owner, RotationState.DONE)
    assert late.keyring.primary == "a"
    await late.keyring.reserve(10)
    late.keyring._reserved = 10
    await room.keys.retire(owner, "a")
    with pytest.raises(StationmasterError) as refused:
        await late.create(owner, "c1", "y")
    assert refused.value.reason is Reason.ENCRYPTION_KEY_UNAVAILABLE
    await late.keyring.refresh()
    await late.create(owner, "c1", "y")
    assert await room.read(owner, "c1") == "y"
    for one in (late, room):
        await one.close()


async def test_a_rotation_is_stopped_where_it_is_and_goes_on(
    database: Database, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await make_room(database, [EnvironmentKeys(TEXT)], active="a", batch=10)
    await fill(database, owner, 100)
    put, stopped = key_store.put_batch, asyncio.Event()

    async def then_stop(tx: Any, wrapped: Any) -> int:
        stopped.set()
        return await put(tx, wrapped)

    monkeypatch.setattr(key_store, "put_batch", then_stop)
    await room.keys.start(owner, "b")
    await stopped.wait()
    await room.keys.stop(owner)
    await until(lambda: _idle(room))
    stop = await room.keys.status(owner)
    assert stop.rotation is not None
    assert stop.rotation.state is RotationState.STOPPED
    assert stop.rotation.done + stop.rotation.remaining == 100
    with pytest.raises(FailedPrecondition) as again:
        await room.keys.stop(owner)
    assert again.value.reason is Reason.ROTATION_NOT_READY
    assert await room.rewrapper.run() == 0
    await room.keys.start(owner, "")
    done = await status_once(room, owner, RotationState.DONE)
    assert done.rotation is not None
    assert (done.rotation.total, done.rotation.done) == (100, 100)
    await check_all(room, owner, 100, "b")
    await room.close()


async def _idle(room: Room) -> bool:
    return not room.keys._going_on


STEPS = {
    "before the keys are read": ("take_batch", False),
    "before the new ones are written": ("put_batch", False),
    "after they are written": ("put_batch", True),
    "before it is noted as done": ("remaining", False),
    "after that is noted": ("set_rotation_state", True),
}
"""What is cut, and whether it was done."""


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_at_each_step_of_ten_thousand_versions_loses_nothing(
    database: Database, owner: Caller, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    room = await make_room(database, [EnvironmentKeys(TEXT)], active="a", batch=3_000)
    await fill(database, owner, MANY)
    name, after = STEPS[step]
    original, calls = getattr(key_store, name), 0

    async def cut(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != (1 if name in ("remaining", "set_rotation_state") else 2):
            return await original(*args)
        if after:
            await original(*args)
        raise Cut

    monkeypatch.setattr(room.rewrapper, "run", _nothing)
    await room.keys.start(owner, "b")
    monkeypatch.undo()
    with monkeypatch.context() as cutting:
        cutting.setattr(key_store, name, cut)
        with pytest.raises(Cut):
            await room.rewrapper.run()
    status = await room.keys.status(owner)
    assert status.rotation is not None
    assert status.rotation.done + status.rotation.remaining == MANY
    assert sum(key.versions for key in status.keys) == MANY
    other = await make_room(database, [EnvironmentKeys(TEXT)])  # the server that takes over
    await other.rewrapper.run()
    done = await other.keys.status(owner)
    assert done.rotation is not None
    assert (done.rotation.state, done.rotation.done) == (RotationState.DONE, MANY)
    await check_all(other, owner, MANY, "b")
    for one in (room, other):
        await one.close()


async def _nothing() -> int:
    return 0


async def test_two_servers_share_a_rotation(database: Database, owner: Caller) -> None:
    rooms = [await make_room(database, [EnvironmentKeys(TEXT)], active="a", batch=50) for _ in range(2)]
    await fill(database, owner, 2_000)
    await rooms[0].keys.start(owner, "b")
    await rooms[1].keyring.refresh()
    await rooms[1].rewrapper.run()
    await until(lambda: _idle(rooms[0]))
    for room in rooms:
        await room.rewrapper.run()
    await status_once(rooms[0], owner, RotationState.DONE)
    assert rooms[0].rewrapper.rewrapped + rooms[1].rewrapper.rewrapped == 2_000
    await check_all(rooms[0], owner, 2_000, "b")
    for room in rooms:
        await room.close()


async def test_what_is_written_meanwhile_is_under_the_new_key(database: Database, owner: Caller) -> None:
    room = await make_room(database, [EnvironmentKeys(TEXT)], active="a")
    await room.create(owner, "db", "one")
    await room.keys.start(owner, "b")
    added = await room.versions.add(owner, "db", Value("two"))
    assert added.key_id == "b"
    await room.close()


async def test_only_operators_look_after_keys_and_only_configured_keys_are_taken(
    database: Database, owner: Caller
) -> None:
    room = await make_room(database, [EnvironmentKeys(OLD)])
    for attempt in (room.keys.status, room.keys.stop):
        with pytest.raises(PermissionDenied):
            await attempt(caller_of(owner.tenant))
    for key_id in ("nothing", ""):
        with pytest.raises(FailedPrecondition) as refused:
            await room.keys.start(owner, key_id)
        assert refused.value.reason is Reason.ROTATION_NOT_READY
    await room.close()


def contents(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.iterdir() if file.is_file()]


async def test_a_mistyped_key_is_refused_and_a_new_one_is_made_when_asked_for(
    database: Database, owner: Caller, tmp_path: Path
) -> None:
    room = await make_room(database, file_keys(tmp_path))
    old, files = room.keyring.primary, contents(tmp_path)
    with pytest.raises(FailedPrecondition, match=f"'?nosuch'? is no key of this server: it has {old}") as refused:
        await room.keys.start(owner, "nosuch")
    assert refused.value.reason is Reason.ROTATION_NOT_READY
    assert contents(tmp_path) == files
    assert room.keyring.primary == old
    started = await room.keys.start(owner, "mine", make_new=True)
    assert {key.key_id: key.present for key in started.keys} == {old: True, "mine": True}
    await status_once(room, owner, RotationState.DONE)
    await room.keys.start(owner, old)  # those that are there need no word
    await room.close()


async def test_a_server_that_is_killed_while_it_wraps_loses_nothing(
    database: Database, database_url: str, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await make_room(database, [EnvironmentKeys(TEXT)], active="a")
    await fill(database, owner, MANY)
    with monkeypatch.context() as held:
        held.setattr(room.rewrapper, "run", _nothing)
        await room.keys.start(owner, "b")
    for batches in (1, 3):
        command = (sys.executable, "-m", "tests.credentials.doomed_rewrapper", database_url, TEXT)
        doomed = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        assert doomed.stdout is not None
        for _ in range(batches):
            assert await doomed.stdout.readline() == b"200\n"
        doomed.kill()
        await doomed.wait()
    status = await room.keys.status(owner)
    assert status.rotation is not None
    assert 400 <= status.rotation.done < MANY
    assert status.rotation.done + status.rotation.remaining == MANY
    await room.rewrapper.run()
    await status_once(room, owner, RotationState.DONE)
    await check_all(room, owner, MANY, "b")
    await room.close()


async def test_a_key_that_is_retired_while_it_is_chosen_does_not_leave_the_database_without_one(
    database: Database, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await make_room(database, [EnvironmentKeys(TEXT)], active="a")
    for key_id in ("b", "a"):
        await room.keys.start(owner, key_id)
        await status_once(room, owner, RotationState.DONE)
    target = room.keys._choice.target

    async def then_retired(*wanted: Any, new: bool) -> str:
        chosen = await target(*wanted, new=new)
        await room.keys.retire(owner, "b")
        return chosen

    monkeypatch.setattr(room.keys._choice, "target", then_retired)
    with pytest.raises(FailedPrecondition, match="retired meanwhile") as refused:
        await room.keys.start(owner, "b")
    assert refused.value.reason is Reason.ROTATION_NOT_READY
    assert await room.keyring.refresh() == ""
    assert room.keyring.primary == "a"
    await room.close()


async def test_a_database_without_a_primary_key_is_told_as_a_problem(database: Database, room: Room) -> None:
    async with database.system() as tx:
        await tx.execute("UPDATE credential_keys SET is_primary = false")
    assert "primary" in await room.keyring.refresh()


async def test_a_version_that_does_not_open_does_not_wear_the_new_key_out(database: Database, owner: Caller) -> None:
    room = await make_room(database, [EnvironmentKeys(TEXT)], active="a")
    await room.create(owner, "db", "x")
    async with database.system() as tx:
        await tx.execute(
            "UPDATE credential_versions SET wrapped_key = set_byte(wrapped_key, 20, 1 - get_byte(wrapped_key, 20) % 2)"
        )
    await room.keys.start(owner, "b")
    await until(lambda: _idle(room))
    for _ in range(5):
        await room.rewrapper.run()
    assert room.rewrapper.damaged == 1
    (new,) = [key for key in (await room.keys.status(owner)).keys if key.key_id == "b"]
    assert new.wraps <= 256  # what a server reserves at once
    await room.close()


async def test_wraps_are_counted_before_the_transaction_and_what_was_not_used_is_given_back(
    database: Database, database_url: str, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection is enough: whoever needs a second one in a transaction waits for itself."""
    room = await make_room(database, [EnvironmentKeys(TEXT)], active="a")
    await fill(database, owner, 5)
    monkeypatch.setattr(room.rewrapper, "run", _nothing)
    await room.keys.start(owner, "b")
    narrow = await Database.connect(
        database_url, pool_size=1, system_pool_size=1, connect_timeout=timedelta(seconds=10)
    )
    keyring = Keyring(narrow, [EnvironmentKeys(TEXT)])
    await keyring.refresh()
    async with database.system() as tx:  # another server is at it
        await key_store.take_batch(tx, "b", None, 2)
        assert await Rewrapper(narrow, keyring).run() == 3
    assert keyring._reserved == 256 - 3
    assert await Rewrapper(narrow, keyring).run() == 2
    assert keyring._reserved == 256 - 5
    await check_all(room, owner, 5, "b")
    await narrow.close()
    await room.close()


async def test_nothing_is_counted_while_no_rotation_runs(
    room: Room, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.keys.start(owner, "")
    await status_once(room, owner, RotationState.DONE)
    for counting in ("rotation", "remaining"):
        monkeypatch.delattr(key_store, counting)
    assert await room.rewrapper.run() == 0


async def test_a_key_that_wraps_something_since_a_moment_is_refused_as_in_use(
    database: Database, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await make_room(database, [EnvironmentKeys(TEXT)], active="a")
    late = await make_room(database, [EnvironmentKeys(TEXT)], active="a")
    await late.create(owner, "c0", "x")  # reserves wraps of the old key
    await room.keys.start(owner, "b")
    await status_once(room, owner, RotationState.DONE)
    wrapping = key_store.wrapping

    async def then_written(tx: Any, key_ids: Any) -> Any:
        found = await wrapping(tx, key_ids)
        assert late.keyring.primary == "a"
        await late.create(owner, "c1", "y")
        return found

    monkeypatch.setattr(key_store, "wrapping", then_written)
    with pytest.raises(FailedPrecondition) as refused:
        await room.keys.retire(owner, "a")
    assert refused.value.reason is Reason.ENCRYPTION_KEY_IN_USE
    assert await room.read(owner, "c1") == "y"
    for one in (room, late):
        await one.close()
