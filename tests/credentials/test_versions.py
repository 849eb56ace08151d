"""Versions, labels and the steps of a rotation."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta

import pytest
from stationmaster_server.credentials import service, values
from stationmaster_server.credentials.importing import Import
from stationmaster_server.credentials.model import (
    Grant,
    Label,
    OnExisting,
    Rotation,
    Step,
    Trial,
    Value,
    VersionState,
)
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    ResourceExhausted,
    StationmasterError,
)

from tests.credentials.room import Room


async def refused(room: Room, caller: Caller, label: Label = Label.CURRENT, *, version: int = 0) -> Reason:
    with pytest.raises(FailedPrecondition) as refusal:
        await room.read(caller, "db", label, version=version)
    return refusal.value.reason


async def test_a_new_version_becomes_current_and_the_one_before_it_previous(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "one")
    added = await room.versions.add(owner, "db", Value("two"))
    assert (added.version, added.label) == (2, Label.CURRENT)
    assert await room.read(owner, "db") == "two"
    assert await room.read(owner, "db", Label.PREVIOUS) == "one"
    assert await room.read(owner, "db", version=1) == "one"


async def test_a_rotation_goes_from_pending_over_its_trial_to_current(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "old")
    begun = await room.versions.rotate(owner, "db", Rotation(Step.BEGIN, Value("new")))
    assert (begun.labels.current, begun.labels.pending) == (1, 2)
    assert await room.read(owner, "db") == "old"
    assert await room.read(owner, "db", Label.PENDING) == "new"
    with pytest.raises(FailedPrecondition, match="not tried"):
        await room.versions.rotate(owner, "db", Rotation(Step.FINISH))
    await room.versions.rotate(owner, "db", Rotation(Step.REPORT, trial=Trial.PASSED))
    done = await room.versions.rotate(owner, "db", Rotation(Step.FINISH))
    assert (done.labels.current, done.labels.previous, done.labels.pending) == (2, 1, None)
    assert await room.read(owner, "db") == "new"
    assert await room.read(owner, "db", Label.PREVIOUS) == "old"
    back = await room.versions.rotate(owner, "db", Rotation(Step.ROLLBACK))
    assert (back.labels.current, back.labels.previous) == (1, 2)
    assert await room.read(owner, "db") == "old"


async def test_a_trial_that_failed_cannot_be_finished_and_abort_destroys_the_value(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "old")
    await room.versions.rotate(owner, "db", Rotation(Step.BEGIN, Value("bad")))
    with pytest.raises(FailedPrecondition) as second:
        await room.versions.rotate(owner, "db", Rotation(Step.BEGIN, Value("another")))
    assert second.value.reason is Reason.ROTATION_NOT_READY
    await room.versions.rotate(owner, "db", Rotation(Step.REPORT, trial=Trial.FAILED))
    for skip in (False, True):
        with pytest.raises(FailedPrecondition, match="trial failed"):
            await room.versions.rotate(owner, "db", Rotation(Step.FINISH, skip_trial=skip))
    aborted = await room.versions.rotate(owner, "db", Rotation(Step.ABORT))
    assert aborted.labels.pending is None
    assert await room.read(owner, "db") == "old"
    assert await refused(room, owner, version=2) is Reason.CREDENTIAL_UNUSABLE
    async with room.database.system(autocommit=True) as tx:
        row = await tx.fetchrow("SELECT ciphertext, wrapped_key, key_id FROM credential_versions WHERE version = 2")
    assert row is not None
    assert tuple(row) == (None, None, None)


async def test_the_previous_version_is_readable_for_its_grace_and_no_longer(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "old")
    await room.versions.rotate(owner, "db", Rotation(Step.REPLACE, Value("new"), grace=timedelta(0)))
    assert await refused(room, owner, Label.PREVIOUS) is Reason.CREDENTIAL_EXPIRED
    with pytest.raises(FailedPrecondition, match="expired"):
        await room.versions.rotate(owner, "db", Rotation(Step.ROLLBACK))
    assert await room.read(owner, "db") == "new"


async def test_a_disabled_version_is_refused_until_it_is_enabled(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "one")
    await room.versions.disable(owner, "db", 1)
    assert await refused(room, owner) is Reason.CREDENTIAL_UNUSABLE
    with pytest.raises(FailedPrecondition) as again:
        await room.versions.disable(owner, "db", 1)
    assert again.value.reason is Reason.ILLEGAL_TRANSITION
    await room.versions.disable(owner, "db", 1, enable=True)
    assert await room.read(owner, "db") == "one"


async def test_a_destroyed_version_is_gone_for_good(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "one")
    destroyed = await room.versions.destroy(owner, "db", 1)
    assert destroyed.state is VersionState.DESTROYED
    assert (await room.credentials.get(owner, "db")).labels.current is None
    with pytest.raises(FailedPrecondition):
        await room.versions.disable(owner, "db", 1, enable=True)
    assert await refused(room, owner) is Reason.CREDENTIAL_UNUSABLE


async def test_an_expired_version_is_refused_by_the_clock_alone(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "one")
    soon = datetime.now(UTC) + timedelta(hours=1)
    added = await room.versions.add(owner, "db", Value("two"), soon)
    assert added.expires_at == soon
    async with room.database.system() as tx:
        await tx.execute("UPDATE credential_versions SET expires_at = now() WHERE version = 2")
    assert await refused(room, owner) is Reason.CREDENTIAL_EXPIRED
    assert await room.read(owner, "db", Label.PREVIOUS) == "one"


async def test_what_does_not_fit_the_kind_of_credential_is_refused(room: Room, owner: Caller) -> None:
    await room.create(owner, "db", "one")
    await room.create(owner, "limit", encrypted=False)
    for credential_id, value in (
        ("db", Value()),
        ("db", Value(setting=1, has_setting=True)),
        ("limit", Value("a secret")),
    ):
        with pytest.raises(InvalidArgument):
            await room.versions.add(owner, credential_id, value)
    with pytest.raises(InvalidArgument):
        await room.versions.rotate(owner, "db", Rotation(Step.ABORT, Value("x")))
    with pytest.raises(NotFound):
        await room.versions.destroy(owner, "db", 7)


async def test_settings_are_typed_values_and_shown(room: Room, owner: Caller) -> None:
    await room.create(owner, "limit", encrypted=False, category="rag_strategy")
    for setting in (3, 2.5, True, None, "text", [1, "a\0b"], {"a": {"b": None}}):
        await room.versions.add(owner, "limit", Value(setting=setting, has_setting=True))
        assert (await room.credentials.get(owner, "limit")).setting == setting


async def test_deleted_credentials_make_room_for_others(
    room: Room, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_CREDENTIALS", 1)
    await room.create(owner, "one", "x")
    with pytest.raises(ResourceExhausted):
        await room.create(owner, "two", "x")
    await room.credentials.delete(owner, "one")
    await room.create(owner, "two", "x")
    with pytest.raises(ResourceExhausted):
        await room.credentials.undelete(owner, "one")


async def test_what_the_contract_says_is_refused_is_refused_for_that_reason(
    room: Room, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.create(owner, "db", "one")
    user = f"users/{owner.tenant.user_id}"
    grant = Grant(new_id(), "db", user, (), None, owner.tenant.user_id)
    granted = await room.grants.grant(owner, "db", grant)
    await room.versions.rotate(owner, "db", Rotation(Step.REPLACE, Value("two"), grace=timedelta(0)))
    assert await reason_of(room.versions.rotate(owner, "db", Rotation(Step.ROLLBACK))) is Reason.CREDENTIAL_EXPIRED
    with monkeypatch.context() as few:
        few.setattr(values, "MOST_VERSIONS", 2)
        three = room.versions.rotate(owner, "db", Rotation(Step.REPLACE, Value("three")))
        assert await reason_of(three) is Reason.LIMIT_REACHED
    wanted = Import("", {"DB": "x"}, on_existing=OnExisting.ADD_VERSION)
    async with room.database.system() as tx:
        await tx.execute("UPDATE credential_versions SET ciphertext = ciphertext || '\\x00'")
    assert await reason_of(room.importing.run(owner, wanted)) is Reason.CREDENTIAL_DAMAGED
    await room.credentials.delete(owner, "db")
    for refused_now in (
        room.versions.disable(owner, "db", 2),
        room.versions.destroy(owner, "db", 2),
        room.grants.grant(owner, "db", grant),
        room.grants.revoke(owner, "db", granted.id),
        room.importing.run(owner, wanted),
    ):
        assert await reason_of(refused_now) is Reason.CREDENTIAL_UNUSABLE
    monkeypatch.setattr(service, "MOST_CREDENTIALS", 0)
    assert await reason_of(room.credentials.undelete(owner, "db")) is Reason.LIMIT_REACHED


async def reason_of(attempt: Awaitable[object]) -> Reason:
    with pytest.raises(StationmasterError) as refusal:
        await attempt
    return refusal.value.reason
