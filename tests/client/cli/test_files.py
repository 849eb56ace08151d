"""`stationmaster files` and `stationmaster usage` against the real server."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_asyncio
from stationmaster.v1 import agent_pb2, storage_pb2
from stationmaster.v1.storage_pb2_grpc import StorageServiceStub
from stationmaster_client import Client
from stationmaster_client.cli import upload_ids
from stationmaster_client.errors import NotFound
from stationmaster_client.files import NONE, file_name

from tests.client.cli.program import Program
from tests.client.cli.terminal import at_terminal
from tests.client.relay import relaying
from tests.fixtures.server import RunningServer
from tests.waiting import until

DATA = os.urandom(3_000_000)


@pytest.fixture
def stationmaster(server: RunningServer, tmp_path: Path) -> Program:
    return Program(tmp_path, server.target, server.admin_key)


@pytest_asyncio.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    """The administrator's client."""
    async with Client.connect(server.target, server.admin_key, insecure=True) as client:
        yield client


@pytest_asyncio.fixture
async def session(client: Client) -> str:
    """The session that was used last."""
    return (await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo"))).name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some files of this machine's."""
    folder = tmp_path / "stuff"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.csv").write_bytes(DATA)
    (folder / "deep" / "b.txt").write_text("Größe\n")
    (folder / "link").symlink_to("/etc/passwd")
    return folder


async def test_files_are_put_listed_shown_fetched_moved_and_removed(
    stationmaster: Program, session: str, folder: Path, tmp_path: Path
) -> None:
    results = await stationmaster.many(
        [
            ["files", "put", "-", str(folder / "a.csv")],
            ["files", "put", "-", str(folder), "all", "-r"],
            ["files", "ls", "-"],
            ["files", "ls", "-", "-r", "--name", "*.csv", "--json"],
            ["files", "tree", "-"],
            ["files", "get", session, "all", "-r", "-o", str(tmp_path / "back")],
            ["files", "mv", session, "a.csv", "moved/"],
            ["usage", "--json"],
            ["usage", "organization"],
            ["files", "rm", session, "all", "-r"],
            ["files", "rm", session, "moved/a.csv", "--json"],
            ["files", "ls", "-"],
        ]
    )
    assert [each.code for each in results] == [0] * len(results), results
    put, put_all, ls, found, tree, _, moved, usage, organization, removed, removed_one, none = results
    assert put.out == "a.csv (2.9 MiB)\n"
    assert "link" not in put_all.out
    assert "all/" in ls.out
    assert "a.csv" in ls.out
    assert [each["path"] for each in json.loads(found.out)["files"]] == ["a.csv", "all/a.csv"]
    assert tree.out.splitlines()[0] == "./"
    assert "└── b.txt" in tree.out
    assert (tmp_path / "back" / "a.csv").read_bytes() == DATA
    assert (tmp_path / "back" / "deep" / "b.txt").read_text() == "Größe\n"
    assert moved.out == "a.csv is moved/a.csv now\n"
    assert int(json.loads(usage.out)["used_bytes" if "used_bytes" in usage.out else "usedBytes"]) == 2 * len(DATA) + 8
    assert "5.7 MiB in 3 files of 1 workspaces" in organization.out
    assert removed.out.splitlines() == ["all/a.csv is deleted", "all/deep/b.txt is deleted"]
    assert [each["path"] for each in json.loads(removed_one.out)["files"]] == ["moved/a.csv"]
    assert "No files." in none.err


async def test_nothing_is_replaced_unless_that_is_wanted(
    stationmaster: Program, session: str, folder: Path, tmp_path: Path
) -> None:
    source, target = str(folder / "deep" / "b.txt"), tmp_path / "here"
    target.write_text("mine")
    first, again, forced, fetched, fetched_by_force = await stationmaster.many(
        [
            ["files", "put", session, source],
            ["files", "put", session, source],
            ["files", "put", session, source, "--force"],
            ["files", "get", session, "b.txt", "-o", str(target)],
            ["files", "get", session, "b.txt", "-o", str(target), "--force"],
        ]
    )
    assert [first.code, again.code, forced.code, fetched.code, fetched_by_force.code] == [0, 5, 0, 2, 0]
    assert "--force" in fetched.err
    assert "exists already: --force replaces it" in again.err
    assert "meanwhile" not in again.err
    other, private = tmp_path / "other", tmp_path / "private"
    private.touch(mode=0o600)
    assert (await stationmaster("files", "get", session, "b.txt", "-o", str(other))).code == 0
    assert (await stationmaster("files", "get", session, "b.txt", "-o", str(private), "--force")).code == 0
    assert [stat.S_IMODE(one.stat().st_mode) for one in (other, private)] == [
        stat.S_IMODE(target.stat().st_mode),
        0o600,
    ]
    assert target.read_text() == "Größe\n"


async def test_what_cannot_be_done_is_told(stationmaster: Program, session: str, folder: Path) -> None:
    results = await stationmaster.many(
        [
            ["files", "put", session, str(folder)],
            ["files", "put", session, "nowhere"],
            ["files", "put", session, str(folder / "a.csv"), "../escape"],
            ["files", "get", session, "nowhere"],
            ["files", "rm", session, "nowhere"],
            ["files", "ls", session, "nowhere"],
            ["files", "put", session, str(folder), "linked", "-r"],
            ["files", "get", session, "linked"],
            ["files", "put", session, str(folder / "a.csv"), "a.csv"],
            ["files", "mv", session, "a.csv", "linked/a.csv"],
        ]
    )
    assert [each.code for each in results] == [2, 2, 2, 3, 3, 3, 0, 2, 0, 5]
    assert "is not there" in results[1].err
    assert "link is left out: it is a link" in results[6].err
    assert "linked is a folder: download all that is in it with -r" in results[7].err
    assert "linked/a.csv exists already: --force replaces it" in results[9].err
    assert "-r" in results[0].err
    assert "must not hold . or .." in results[2].err


async def test_standard_input_is_uploaded_and_standard_output_written(
    stationmaster: Program, session: str, client: Client
) -> None:
    result = await stationmaster("files", "put", session, "-", "notes.txt", stdin="from a pipe")
    assert result.code == 0, result.err
    assert await client.files.read(session, "notes.txt") == b"from a pipe"
    assert (await stationmaster("files", "get", session, "notes.txt", "-o", "-")).out == "from a pipe"


async def broken_off(server: RunningServer, session: str, file: Path, remote: str) -> str:
    """An upload of the command line that was killed after a megabyte; its id."""
    upload_id = upload_ids.of(session, remote, file)
    data = await asyncio.to_thread(file.read_bytes)
    header = storage_pb2.UploadFileHeader(
        name=file_name(session, remote),
        size_bytes=len(data),
        sha256=sha256(data).hexdigest(),
        etag=NONE,
    )
    async with server.channel() as channel:
        call = StorageServiceStub(channel).UploadFile()
        await call.write(storage_pb2.UploadFileRequest(header=header, request_id=upload_id))
        await call.write(storage_pb2.UploadFileRequest(data=data[: 1 << 20]))
        await asyncio.sleep(0.2)
        call.cancel()  # the server keeps what has arrived
    return upload_id


async def test_an_upload_that_was_killed_is_gone_on_with_or_given_up(
    stationmaster: Program, server: RunningServer, session: str, folder: Path, client: Client
) -> None:
    file, name = folder / "a.csv", session
    for remote in ("kept.csv", "lost.csv"):
        upload_id = await broken_off(server, name, file, remote)

        async def received(upload_id: str = upload_id) -> bool:
            return (await client.files.get_upload(name, upload_id)).received_bytes > 0

        await until(received)
    put = await stationmaster("files", "put", session, str(file), "kept.csv")
    assert (put.code, "going on after 1.0 MiB" in put.err) == (0, True), put
    assert await client.files.read(name, "kept.csv") == DATA
    again = await stationmaster("files", "put", session, str(file), "kept.csv")
    assert (again.code, "exists already: --force" in again.err) == (5, True)
    forced = await stationmaster("files", "put", session, str(file), "kept.csv", "--force")
    assert (forced.code, "going on" in forced.err) == (0, False)
    given_up = await stationmaster("files", "give-up", session, str(file), "lost.csv")
    assert given_up.out == "the upload of lost.csv is given up\n"
    assert (await stationmaster("files", "give-up", session, str(file), "lost.csv")).code == 3
    with pytest.raises(NotFound):
        await client.files.get_upload(name, upload_id)


async def test_transfers_go_on_by_themselves_after_a_broken_connection(
    server: RunningServer, session: str, folder: Path, tmp_path: Path, client: Client
) -> None:
    async with relaying(server.target, cut_after=1_200_000, upwards=True) as relay:
        program = Program(tmp_path, relay.target, server.admin_key)
        put = await program("files", "put", session, str(folder / "a.csv"))
        assert (put.code, relay.cuts > 1) == (0, True), put.err
    assert await client.files.read(session, "a.csv") == DATA
    async with relaying(server.target, cut_after=1_200_000) as relay:
        program = Program(tmp_path, relay.target, server.admin_key)
        got = await program("files", "get", session, "a.csv", "-o", str(tmp_path / "back"))
        assert (got.code, relay.cuts > 1) == (0, True), got.err
    assert (tmp_path / "back").read_bytes() == DATA
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".back")]  # noqa: PTH208


async def test_a_bar_is_drawn_at_a_terminal_and_nowhere_else(
    stationmaster: Program, session: str, folder: Path
) -> None:
    piped = await stationmaster("files", "put", session, str(folder / "a.csv"))
    assert (piped.code, piped.err) == (0, "")
    async with at_terminal(stationmaster, "files", "put", session, str(folder / "a.csv"), "again") as screen:
        assert await screen.ended() == 0
        assert "MB/s" in screen.screen or "━" in screen.screen
        assert "again (2.9 MiB)" in screen.screen


async def test_a_quota_of_storage_is_set_and_shown(stationmaster: Program, session: str, folder: Path) -> None:
    results = await stationmaster.many(
        [
            ["quota", "set", "organization", "--storage", "2MiB"],
            ["usage", "organization"],
            ["quota", "get", "organization"],
        ]
    )
    assert [each.code for each in results] == [0] * 3, results
    assert "2.0 MiB, 2.0 MiB left" in results[1].out
    assert "bytes stored" in results[2].out

    async with asyncio.timeout(20):
        while (refused := await stationmaster("files", "put", session, str(folder / "a.csv"), "--force")).code == 0:
            pass
    assert refused.code == 6
    assert "the limit of storage is 2097152 bytes" in refused.err
    assert "delete files (stationmaster files rm)" in " ".join(refused.err.split())
    assert "Try again" not in refused.err, "it does not refill by itself"
    (unknown,) = await stationmaster.many([["quota", "set", "organization", "--storage", "10MB"]])
    assert (unknown.code, "'10MB' is no size: write bytes, or 500MiB" in unknown.err) == (2, True)
