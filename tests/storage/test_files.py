"""Files of workspaces: put, found, read, moved and deleted, and counted."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import pytest
from stationmaster.v1 import identity_pb2, session_pb2, storage_pb2
from stationmaster.v1.identity_pb2_grpc import IdentityServiceStub

from tests.contract.world import code_of, reason_of
from tests.fixtures.server import RunningServer
from tests.storage.desk import CHUNK, Desk

DATA = os.urandom(2 * CHUNK + 777)


async def refused(call: Any) -> tuple[str, str]:
    """Status and reason of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return code_of(error.value), reason_of(error.value)


async def audit(url: str, action: str) -> list[asyncpg.Record]:
    """The events of an action."""
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch("SELECT * FROM audit_events WHERE action = $1 ORDER BY id", action))
    finally:
        await connection.close()


async def test_what_is_put_is_found_listed_and_read(desk: Desk, myself: tuple[str, str], database_url: str) -> None:
    file = await desk.put("data/prices.csv", DATA)
    assert (file.name, file.path) == (desk.name("data/prices.csv"), "data/prices.csv")
    assert (file.size_bytes, file.kind) == (len(DATA), storage_pb2.FILE_KIND_FILE)
    assert file.sha256 == hashlib.sha256(DATA).hexdigest()
    assert file.HasField("update_time")
    assert await desk.stat("data/prices.csv") == file
    assert await desk.list() == ["data/"]
    assert await desk.list("data") == await desk.list(recursive=True) == ["data/prices.csv"]
    assert (await desk.stat("data")).kind == storage_pb2.FILE_KIND_FOLDER
    pieces = await desk.pieces("data/prices.csv")
    assert pieces[0].file == file
    assert b"".join(piece.data for piece in pieces) == DATA
    assert pieces[-1].sha256 == file.sha256
    info = await desk.info()
    assert (info.used_bytes, info.file_count, info.reserved_bytes) == (len(DATA), 1, 0)
    assert info.owner == myself[0]
    (event,) = await audit(database_url, "file.put")
    assert event["resource"] == file.name
    assert json.loads(event["details"])["sha256"] == file.sha256


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_bytes_that_changed_on_the_disk_do_not_fit_the_checksum_that_comes_with_them(
    desk: Desk, tmp_path: Path
) -> None:
    file = await desk.put("a", DATA)
    path = tmp_path / "data" / "workspaces" / desk.workspace.partition("/")[2] / "a"
    status = path.stat()
    path.write_bytes(b"x" + DATA[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    pieces = await desk.pieces("a")
    assert pieces[-1].sha256 == file.sha256 != hashlib.sha256(b"".join(piece.data for piece in pieces)).hexdigest()


async def test_a_file_may_be_empty(desk: Desk) -> None:
    assert (await desk.put("empty")).size_bytes == 0
    (piece,) = await desk.pieces("empty")
    assert (piece.file.path, piece.data, piece.sha256) == ("empty", b"", hashlib.sha256().hexdigest())


async def test_a_file_takes_the_place_of_another_at_once(desk: Desk) -> None:
    first = await desk.put("a", DATA)
    second = await desk.put("a", b"other")
    assert first.etag != second.etag
    assert await desk.get("a") == b"other"
    info = await desk.info()
    assert (info.used_bytes, info.file_count) == (5, 1)


async def test_a_size_need_not_be_known(desk: Desk) -> None:
    file = await desk.put("a", DATA, size_bytes=None, sha256=None)
    assert (file.size_bytes, file.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())


@pytest.mark.parametrize("offset", [1, 1024, len(DATA) - 1, len(DATA)])
async def test_a_download_goes_on_at_any_byte(desk: Desk, offset: int) -> None:
    file = await desk.put("a", DATA)
    pieces = await desk.pieces("a", offset, file.etag)
    assert pieces[0].offset == offset
    assert b"".join(piece.data for piece in pieces) == DATA[offset:]
    assert pieces[-1].sha256 == hashlib.sha256(DATA[offset:]).hexdigest()


async def test_a_download_does_not_go_on_in_another_file(desk: Desk) -> None:
    file = await desk.put("a", DATA)
    await desk.put("a", DATA[:-1] + b"!")
    assert await refused(desk.pieces("a", 5, file.etag)) == ("ABORTED", "ETAG_MISMATCH")
    assert await refused(desk.pieces("a", len(DATA) + 1)) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await refused(desk.pieces("b")) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


async def test_lists_come_in_pages_and_fit_a_pattern(desk: Desk) -> None:
    paths = ["a.csv", "b/1.csv", "b/2.txt", "b/c/3.csv", "b.csv", "d-e", "d/f"]
    for path in paths:
        await desk.put(path, b"x")
    everything = await desk.list(recursive=True)
    assert sorted(everything) == sorted(paths)
    top = await desk.list()
    assert sorted(top) == ["a.csv", "b.csv", "b/", "d-e", "d/"]
    for size in (1, 2, 3):
        assert await desk.list(recursive=True, page_size=size) == everything
        assert await desk.list(page_size=size) == top
        assert sorted(await desk.list("b", page_size=size)) == ["b/1.csv", "b/2.txt", "b/c/"]
        assert sorted(await desk.list(recursive=True, page_size=size, filter='name = "*.csv"')) == [
            "a.csv",
            "b.csv",
            "b/1.csv",
            "b/c/3.csv",
        ]
    assert await desk.list("nowhere") == []
    assert await refused(desk.list(filter="*.csv")) == ("INVALID_ARGUMENT", "INVALID_FILTER")
    assert await refused(desk.list("../x")) == ("INVALID_ARGUMENT", "INVALID_FIELD")


async def test_what_is_deleted_is_gone_and_free_and_its_folder_with_it(desk: Desk, database_url: str) -> None:
    await desk.put("a/b/c", DATA)
    await desk.put("a/d", b"x")
    assert await refused(desk.delete("a/b/c", etag="another")) == ("ABORTED", "ETAG_MISMATCH")
    assert await refused(desk.delete("a")) == ("FAILED_PRECONDITION", "NOT_EMPTY")
    await desk.delete("a/b/c", etag=(await desk.stat("a/b/c")).etag)
    assert await desk.list(recursive=True) == ["a/d"]
    assert await desk.list("a") == ["a/d"]
    assert await refused(desk.delete("a/b/c")) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    assert (await desk.info()).used_bytes == 1
    (event,) = await audit(database_url, "file.delete")
    assert event["resource"] == desk.name("a/b/c")


async def test_a_repeat_with_the_same_request_id_does_nothing_more(desk: Desk) -> None:
    await desk.put("a", b"1")
    once, twice = str(uuid4()), str(uuid4())
    moved = await desk.move("a", "b", request_id=once)
    assert await desk.move("a", "b", request_id=once) == moved
    await desk.delete("b", request_id=twice)
    await desk.put("b", b"new")
    await desk.delete("b", request_id=twice)
    assert await desk.get("b") == b"new"


async def test_a_file_moves_with_its_checksum(desk: Desk, database_url: str) -> None:
    file = await desk.put("a/b", DATA)
    await desk.put("c/d", b"x")
    assert await refused(desk.move("a/b", "c/d")) == ("ALREADY_EXISTS", "RESOURCE_EXISTS")
    assert await refused(desk.move("a/b", "c")) == ("ALREADY_EXISTS", "RESOURCE_EXISTS")
    assert await refused(desk.move("a/b", "a/b/c")) == ("FAILED_PRECONDITION", "FILE_REFUSED")
    assert await refused(desk.move("a", "e")) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    moved = await desk.move("a/b", "c/d", overwrite=True)
    assert (moved.path, moved.sha256, moved.size_bytes) == ("c/d", file.sha256, len(DATA))
    assert await desk.list(recursive=True) == ["c/d"]
    assert await desk.get("c/d") == DATA
    info = await desk.info()
    assert (info.used_bytes, info.file_count) == (len(DATA), 1)
    assert len(await audit(database_url, "file.move")) == 1


async def test_etags_say_what_may_be_replaced(desk: Desk) -> None:
    assert await refused(desk.put("a", b"1", etag="*")) == ("ABORTED", "ETAG_MISMATCH")
    file = await desk.put("a", b"1", etag="none")
    assert await refused(desk.put("a", b"2", etag="none")) == ("ABORTED", "ETAG_MISMATCH")
    assert await refused(desk.put("a", b"2", etag="stale")) == ("ABORTED", "ETAG_MISMATCH")
    second = await desk.put("a", b"2", etag=file.etag)
    await desk.put("a", b"3", etag="*")
    assert await refused(desk.put("a", b"4", etag=second.etag)) == ("ABORTED", "ETAG_MISMATCH")
    assert await desk.get("a") == b"3"
    assert (await desk.info()).reserved_bytes == 0


async def test_bytes_that_are_not_those_announced_leave_nothing(desk: Desk, myself: tuple[str, str]) -> None:
    wrong = hashlib.sha256(b"other").hexdigest()
    assert await refused(desk.put("a", DATA, sha256=wrong)) == ("INVALID_ARGUMENT", "CHECKSUM_MISMATCH")
    assert await refused(desk.put("a", DATA, size_bytes=len(DATA) + 1)) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await refused(desk.put("a", DATA, size_bytes=len(DATA) - 1)) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await refused(desk.put("a", chunks=[b"x" * (1 << 20) + b"x"])) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await desk.list() == []
    usage = await desk.usage(myself[0])
    assert (usage.used_bytes, usage.reserved_bytes) == (0, 0)


async def test_an_upload_begins_with_its_header_and_ends_with_its_last_message(desk: Desk) -> None:
    header = storage_pb2.UploadFileHeader(name=desk.name("a"))
    for messages in (
        [],
        [storage_pb2.UploadFileRequest(data=b"x")],
        [storage_pb2.UploadFileRequest(header=header, data=b"x")],
        [storage_pb2.UploadFileRequest(header=header), storage_pb2.UploadFileRequest(header=header)],
        [storage_pb2.UploadFileRequest(header=header, last=True), storage_pb2.UploadFileRequest(data=b"x")],
        [storage_pb2.UploadFileRequest(header=header), storage_pb2.UploadFileRequest(data=b"x")],
    ):
        assert await refused(desk.stub.UploadFile(iter(messages))) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert await desk.list() == []


async def test_a_file_and_a_folder_cannot_have_one_path(desk: Desk) -> None:
    await desk.put("a", b"x")
    await desk.put("b/c", b"x")
    assert await refused(desk.put("a/b", b"x")) == ("FAILED_PRECONDITION", "FILE_REFUSED")
    assert await refused(desk.put("b", b"x")) == ("FAILED_PRECONDITION", "FILE_REFUSED")
    assert sorted(await desk.list(recursive=True)) == ["a", "b/c"]
    assert (await desk.info()).reserved_bytes == 0


async def test_files_of_a_session_that_ended_are_read_and_deleted_only(desk: Desk) -> None:
    await desk.put("a", DATA)
    await desk.sessions.TerminateSession(session_pb2.TerminateSessionRequest(name=desk.session))
    assert await refused(desk.put("b", b"x")) == ("FAILED_PRECONDITION", "SESSION_CLOSED")
    assert await refused(desk.move("a", "b")) == ("FAILED_PRECONDITION", "SESSION_CLOSED")
    assert await desk.get("a") == DATA
    await desk.delete("a")
    assert await desk.list() == []


async def test_members_see_their_own_files_and_owners_all(stored_at: RunningServer, admin: grpc.aio.Channel) -> None:
    identity: Any = IdentityServiceStub(admin)
    people = []
    for name in ("Ada", "Bob"):
        user = identity_pb2.User(display_name=name, role=identity_pb2.ROLE_MEMBER)
        made = await identity.CreateUser(identity_pb2.CreateUserRequest(user=user))
        key = await identity.CreateApiKey(identity_pb2.CreateApiKeyRequest(api_key=identity_pb2.ApiKey(user=made.name)))
        people.append((made.name, key.secret))
    async with stored_at.channel(people[0][1]) as ada, stored_at.channel(people[1][1]) as bob:
        hers = await Desk.open(ada)
        await hers.put("a", DATA)
        his_eyes, owners_eyes = Desk(bob, hers.session), Desk(admin, hers.session)
        for call in (
            his_eyes.stat("a"),
            his_eyes.get("a"),
            his_eyes.list(),
            his_eyes.info(),
            his_eyes.put("b", b"x"),
            his_eyes.delete("a"),
            his_eyes.move("a", "b"),
        ):
            assert await refused(call) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
        assert await owners_eyes.get("a") == DATA
        await owners_eyes.put("b", b"x")
        usage = await hers.usage(people[0][0])
        assert (usage.used_bytes, usage.file_count, usage.workspace_count) == (len(DATA) + 1, 2, 1)
        quota = await identity.GetQuotaUsage(identity_pb2.GetQuotaUsageRequest(name=f"{people[0][0]}/quota"))
        assert quota.storage_bytes == len(DATA) + 1
