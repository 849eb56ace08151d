"""Archives of workspaces: made whole, kept, restored as they were, and deleted in time."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import identity_pb2, maintenance_pb2, session_pb2, storage_pb2
from stationmaster.v1.identity_pb2_grpc import IdentityServiceStub
from stationmaster.v1.maintenance_pb2_grpc import MaintenanceServiceStub

from tests.fixtures.server import RunningServer
from tests.storage.desk import CHUNK, Desk
from tests.storage.places import Site
from tests.storage.test_attacks import racing
from tests.storage.test_files import audit, refused
from tests.storage.vault import GZ, ZST, Vault, whole
from tests.waiting import until

FILES = {
    "a": b"first",
    "data/empty": b"",
    "data/large": os.urandom(5 * CHUNK + 321),
    "README": b"two names",
    "readme": b"that differ in case",
    f"{'long/' * 25}{'x' * 200}": b"a long path",
    "notes/grüße 日本.txt": b"not ASCII",
}


async def fill(desk: Desk, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        await desk.put(path, data)


async def contents(desk: Desk) -> dict[str, bytes]:
    return {path: await desk.get(path) for path in await desk.list(recursive=True)}


@pytest.mark.parametrize("form", [GZ, ZST], ids=["gzip", "zstd"])
async def test_a_workspace_comes_back_as_it_was(desk: Desk, myself: tuple[str, str], form: int) -> None:
    await fill(desk, FILES)
    vault = Vault(desk)
    archive = await vault.make(format=form)
    assert (archive.name, archive.session, archive.owner) == (vault.name, desk.session, myself[0])
    assert (archive.format, archive.file_count) == (form, len(FILES))
    assert archive.content_bytes == sum(map(len, FILES.values()))
    assert archive.expire_time.seconds - archive.create_time.seconds == 180 * 86400
    data = await vault.get()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (archive.size_bytes, archive.sha256)
    assert await vault.list() == [archive]
    other = await Desk.open(desk.channel)
    await other.put("kept", b"kept")
    workspace = await Vault(other).restore(vault)
    assert await contents(other) == FILES | {"kept": b"kept"}
    assert (workspace.used_bytes, workspace.file_count) == (archive.content_bytes + 4, len(FILES) + 1)
    assert workspace.reserved_bytes == 0
    assert (await other.stat("data/large")).sha256 == hashlib.sha256(FILES["data/large"]).hexdigest()
    assert await contents(desk) == FILES


async def test_the_manifest_has_every_file_with_its_checksum(desk: Desk) -> None:
    await fill(desk, FILES)
    vault = Vault(desk)
    await vault.make()
    with tarfile.open(fileobj=io.BytesIO(await vault.get())) as tar:
        *files, last = tar.getmembers()
        read = {member.name.removeprefix("workspace/"): tar.extractfile(member) for member in files}
        found = {path: file.read() for path, file in read.items() if file is not None}
        manifest = tar.extractfile(last)
        assert (last.name, manifest is not None) == ("manifest.json", True)
        document = json.loads(manifest.read()) if manifest is not None else {}
    assert found == FILES
    assert (document["format"], document["version"]) == ("stationmaster.workspace-archive", 1)
    assert document["workspace"] == desk.workspace
    assert {each["path"]: (each["size_bytes"], each["sha256"]) for each in document["files"]} == {
        path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in FILES.items()
    }


async def test_an_empty_workspace_can_be_archived_and_restored(desk: Desk) -> None:
    vault = Vault(desk)
    assert (await vault.make()).file_count == 0
    assert (await vault.restore()).file_count == 0


async def test_a_downloaded_archive_is_restored_from_a_file(desk: Desk) -> None:
    await fill(desk, {path: data for path, data in FILES.items() if path != "readme"})
    await Vault(desk).make(format=ZST)
    other = await Desk.open(desk.channel)
    await other.put("old.tar.zst", await Vault(desk).get())
    await Vault(other).restore(file=other.name("old.tar.zst"))
    assert await other.get("data/large") == FILES["data/large"]
    await other.put("own.tar.gz", whole(("b", b"by hand")))
    await Vault(other).restore(file=other.name("own.tar.gz"))
    assert await other.get("b") == b"by hand"
    assert await refused(Vault(other).restore(file=other.name("a"))) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await refused(Vault(other).restore(file=other.name("no.tar.gz"))) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


async def test_files_that_are_there_are_replaced_only_if_that_is_wanted(desk: Desk, database_url: str) -> None:
    await fill(desk, {"a": b"one", "b": b"two"})
    vault = Vault(desk)
    await vault.make()
    await desk.put("a", b"changed")
    await desk.delete("b")
    assert await refused(vault.restore()) == ("ALREADY_EXISTS", "RESOURCE_EXISTS")
    assert await contents(desk) == {"a": b"changed"}
    workspace = await vault.restore(overwrite=True)
    assert await contents(desk) == {"a": b"one", "b": b"two"}
    assert (workspace.used_bytes, workspace.file_count, workspace.reserved_bytes) == (6, 2, 0)
    (event,) = await audit(database_url, "archive.restore")
    assert event["resource"] == desk.workspace
    assert json.loads(event["details"])["replaced"] == 1
    await desk.delete("a")
    await desk.put("a/folder", b"in the way")
    assert await refused(vault.restore(overwrite=True)) == ("FAILED_PRECONDITION", "FILE_REFUSED")
    await desk.delete("a/folder")
    await desk.sessions.TerminateSession(session_pb2.TerminateSessionRequest(name=desk.session))
    assert await refused(vault.restore()) == ("FAILED_PRECONDITION", "SESSION_CLOSED")


async def test_a_session_has_one_archive_which_another_replaces_when_it_is_whole(
    desk: Desk, site: Site, database_url: str
) -> None:
    await desk.put("a", b"one")
    vault = Vault(desk)
    first = await vault.make()
    assert await refused(vault.make()) == ("ALREADY_EXISTS", "RESOURCE_EXISTS")
    await desk.put("a", b"another")
    second = await vault.make(overwrite=True)
    assert await vault.list() == [second]
    assert first.etag != second.etag
    assert await refused(vault.get(etag=first.etag)) == ("ABORTED", "ETAG_MISMATCH")
    assert await refused(vault.delete(etag=first.etag)) == ("ABORTED", "ETAG_MISMATCH")
    assert await refused(vault.get(offset=second.size_bytes + 1)) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await vault.get(offset=second.size_bytes) == b""
    assert await vault.get(offset=10) == (await vault.get())[10:]
    assert await site.everything() == {"a", "archive.tar.gz"}
    await vault.delete(etag=second.etag)
    assert await site.everything() == {"a"}
    assert await refused(vault.get()) == await refused(vault.delete()) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    assert await refused(vault.restore(overwrite=True)) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    assert [len(await audit(database_url, f"archive.{verb}")) for verb in ("create", "delete")] == [2, 1]


async def test_the_same_request_makes_one_archive_and_restores_once(desk: Desk) -> None:
    await desk.put("a", b"one")
    vault, request, restore = Vault(desk), str(uuid4()), str(uuid4())
    first = await vault.make(request_id=request)
    await desk.delete("a")
    assert await vault.make(request_id=request) == first
    await vault.restore(request_id=restore)
    await desk.delete("a")
    assert (await vault.restore(request_id=restore)).file_count == 0
    assert await refused(vault.make(request_id=restore)) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_what_is_no_plain_file_is_left_out(desk: Desk, site: Site, tmp_path: Path) -> None:
    await desk.put("a", b"a")
    folder = tmp_path / "data" / "workspaces" / desk.workspace.partition("/")[2]
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    vault = Vault(desk)
    assert (await vault.make()).file_count == 1
    other = await Desk.open(desk.channel)
    await Vault(other).restore(vault)
    assert await contents(other) == {"a": b"a"}


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_others_change_files_meanwhile_and_each_is_packed_as_it_was_at_one_moment(
    desk: Desk, site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "workspaces" / desk.workspace.partition("/")[2]
    await fill(desk, {f"{number:02}": b"still" for number in range(40)})
    versions = [bytes([number]) * 200_000 for number in range(256)]
    await desk.put("changing", versions[0])
    rounds = itertools.cycle(versions)

    def swap() -> None:
        (folder / "aside").write_bytes(next(rounds))
        (folder / "aside").rename(folder / "changing")

    vault = Vault(desk)
    with racing(swap):
        await vault.make()
        await desk.put("meanwhile", b"nobody waits")
    other = await Desk.open(desk.channel)
    await Vault(other).restore(vault)
    assert await other.get("changing") in versions
    (folder / "log").write_bytes(bytes(3 * CHUNK * 16))

    def append() -> None:
        with (folder / "log").open("ab") as log:
            log.write(b"one more line")

    with racing(append):
        assert await refused(vault.make(overwrite=True)) == ("ABORTED", "CONCURRENT_CHANGE")
    assert len(await vault.list()) == 1
    usage = await desk.usage((await desk.info()).owner)
    assert (usage.archive_count, usage.reserved_bytes) == (1, 0)


@asynccontextmanager
async def limited(desk: Desk, owner: str, most_bytes: int) -> AsyncIterator[None]:
    stub: Any = IdentityServiceStub(desk.channel)
    mask = FieldMask(paths=["max_storage_bytes"])
    quota = identity_pb2.Quota(name=f"{owner}/quota", max_storage_bytes=most_bytes)
    await stub.SetQuota(identity_pb2.SetQuotaRequest(quota=quota, update_mask=mask))
    yield
    quota = identity_pb2.Quota(name=f"{owner}/quota")
    await stub.SetQuota(identity_pb2.SetQuotaRequest(quota=quota, update_mask=mask))


async def test_archives_and_restores_never_pass_a_quota(desk: Desk, myself: tuple[str, str], site: Site) -> None:
    data = os.urandom(3 * 1024 * 1024)
    await desk.put("a", data)
    vault, size = Vault(desk), len(data)
    async with limited(desk, myself[0], 2 * size - 1):
        assert await refused(vault.make()) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
        usage = await desk.usage(myself[0])
        assert (usage.used_bytes, usage.reserved_bytes, usage.archive_count) == (size, 0, 0)
        assert await site.everything() == {"a"}
    archive = await vault.make()
    usage = await desk.usage(myself[0])
    assert (usage.used_bytes, usage.reserved_bytes) == (size + archive.size_bytes, 0)
    assert (usage.archive_bytes, usage.archive_count) == (archive.size_bytes, 1)
    other = await Desk.open(desk.channel)
    async with limited(desk, myself[0], usage.used_bytes + size - 1):
        assert await refused(Vault(other).restore(vault)) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
        assert await contents(other) == {}
        assert (await desk.usage(myself[0])).reserved_bytes == 0
    async with limited(desk, myself[0], usage.used_bytes + size):
        await Vault(other).restore(vault)
    await vault.delete()
    usage = await desk.usage(myself[1])
    assert (usage.used_bytes, usage.reserved_bytes, usage.archive_count) == (2 * size, 0, 0)


async def test_others_see_no_archive(desk: Desk, stored_at: RunningServer) -> None:
    await desk.put("a", b"a")
    vault = Vault(desk)
    await vault.make()
    identity: Any = IdentityServiceStub(desk.channel)
    user = identity_pb2.User(display_name="Bob", role=identity_pb2.ROLE_MEMBER)
    bob = await identity.CreateUser(identity_pb2.CreateUserRequest(user=user))
    key = await identity.CreateApiKey(identity_pb2.CreateApiKeyRequest(api_key=identity_pb2.ApiKey(user=bob.name)))
    async with stored_at.channel(key.secret) as channel:
        own = await Desk.open(channel)
        theirs = Vault(own)
        theirs.name = vault.name
        assert await theirs.list() == []
        for call in (theirs.get(), theirs.delete(), theirs.restore()):
            assert await refused(call) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
        request = storage_pb2.ArchiveWorkspaceRequest(name=desk.workspace)
        assert await refused(own.stub.ArchiveWorkspace(request)) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
        assert (await theirs.clean_up(older_than=Duration())).deleted_count == 0
    assert len(await vault.list()) == 1


async def test_a_clean_up_deletes_what_fits_and_is_old_enough(desk: Desk, site: Site, database_url: str) -> None:
    vaults = [Vault(desk), Vault(await Desk.open(desk.channel)), Vault(await Desk.open(desk.channel))]
    made = [await vault.make() for vault in vaults]
    first = f'session = "{made[0].session}"'
    age = Duration()
    age.FromTimedelta(timedelta(days=1))
    assert await refused(vaults[0].clean_up()) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await refused(vaults[0].clean_up(filter="nothing")) == ("INVALID_ARGUMENT", "INVALID_FILTER")
    assert (await vaults[0].clean_up(older_than=age)).deleted_count == 0
    told = await vaults[0].clean_up(filter=first, validate_only=True)
    assert (told.deleted_count, told.freed_bytes, list(told.sample)) == (1, made[0].size_bytes, [made[0].name])
    assert len(await vaults[0].list()) == 3
    assert await vaults[0].clean_up(filter=first) == told
    assert await vaults[0].list(order_by="create_time") == made[1:]
    await age_by(database_url, timedelta(days=2), made[1].session)
    assert list((await vaults[0].clean_up(older_than=age)).sample) == [made[1].name]
    assert await vaults[0].list() == made[2:]
    assert len(await site.everything()) == 1
    assert len(await audit(database_url, "archive.delete")) == 2


async def age_by(url: str, age: timedelta, session: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "UPDATE archives SET created_at = created_at - $1::interval WHERE 'sessions/' || session_id = $2",
            age,
            session,
        )
    finally:
        await connection.close()


@pytest.fixture
def kept_for_a_moment(storage_settings: dict[str, Any]) -> None:
    """Archives go by themselves."""
    storage_settings["archive_retention"] = "1s"


async def test_archives_that_are_past_their_time_are_deleted(
    kept_for_a_moment: None, desk: Desk, site: Site, myself: tuple[str, str], database_url: str
) -> None:
    vault = Vault(desk)
    await vault.make()
    maintenance: Any = MaintenanceServiceStub(desk.channel)
    request = maintenance_pb2.TriggerOperationRequest(service="backgroundServices/archive-cleanup", operation="run")

    async def gone() -> bool:
        await maintenance.TriggerOperation(request)
        return not await site.everything()

    await until(gone, seconds=30)
    assert await vault.list() == []
    (event,) = await audit(database_url, "archive.delete")
    assert (event["category"], event["reason"]) == ("system", "retention")

    async def counted() -> bool:
        return not (await desk.usage(myself[0])).used_bytes

    await until(counted)
