"""Archives by the client, and by `stationmaster archives`: made, fetched over broken connections, restored, deleted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from stationmaster.v1 import agent_pb2, storage_pb2
from stationmaster_client import Client, SyncClient, errors
from stationmaster_client.cli.archives import _restore_file
from stationmaster_client.cli.command import Run
from stationmaster_client.cli.output import Output
from stationmaster_client.files import Files

from tests.client.cli.program import Program
from tests.client.cli.terminal import at_terminal
from tests.client.relay import relaying
from tests.fixtures.server import RunningServer

DATA = hashlib.shake_256(b"an archive").digest(5 * 1024 * 1024 + 321)
SPEC = agent_pb2.AgentSpec(model="demo")


@pytest_asyncio.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    """The administrator's client."""
    async with Client.connect(server.target, server.admin_key, insecure=True) as client:
        yield client


@pytest_asyncio.fixture
async def session(client: Client) -> str:
    """A session with files."""
    name = (await client.sessions.create(spec=SPEC)).name
    await client.files.upload(name, "a/b", DATA)
    await client.files.upload(name, "c", b"c")
    return name


async def test_an_archive_is_made_fetched_restored_and_deleted(client: Client, session: str) -> None:
    archive = await client.archives.create(session, format=storage_pb2.ARCHIVE_FORMAT_TAR_ZST)
    assert [each async for each in client.archives.list()] == [archive]
    assert await client.archives.get(session) == archive
    assert hashlib.sha256(await client.archives.read(session)).hexdigest() == archive.sha256
    other = (await client.sessions.create(spec=SPEC)).name
    assert (await client.archives.restore(other, session)).file_count == 2
    assert await client.files.read(other, "a/b") == DATA
    with pytest.raises(errors.AlreadyExists):
        await client.archives.restore(other, archive.name)
    with pytest.raises(errors.AlreadyExists):
        await client.archives.create(session)
    await client.files.upload(other, "old.tar.zst", await client.archives.read(session))
    await client.archives.restore(other, path="old.tar.zst", overwrite=True)
    assert (await client.archives.clean_up(older_than=timedelta(days=1))).deleted_count == 0
    assert (await client.archives.clean_up(older_than=timedelta(), validate_only=True)).deleted_count == 1
    await client.archives.delete(session)
    with pytest.raises(errors.NotFound):
        await client.archives.delete(session)


async def test_a_download_survives_cuts_and_notices_another_archive(
    server: RunningServer, client: Client, session: str
) -> None:
    first = await client.archives.create(session)
    async with relaying(server.target, cut_after=1_500_000) as relay:
        async with Client.connect(relay.target, server.admin_key, insecure=True) as cut:
            assert hashlib.sha256(await cut.archives.read(session)).hexdigest() == first.sha256
        assert relay.cuts >= 2
    await client.archives.create(session, overwrite=True)
    with pytest.raises(errors.Aborted):
        async with client.archives.download(session, 100, etag=first.etag) as pieces:
            await anext(pieces)


async def test_blocking_code_archives_as_well(server: RunningServer, session: str) -> None:
    def blocking() -> int:
        with SyncClient.connect(server.target, server.admin_key, insecure=True) as client:
            archive = client.archives.create(session)
            assert [each.name for each in client.archives.list()] == [archive.name]
            return len(client.archives.read(session)) - archive.size_bytes

    assert await asyncio.to_thread(blocking) == 0


async def test_the_command_line_makes_fetches_restores_and_removes_archives(
    server: RunningServer, client: Client, session: str, tmp_path: Path
) -> None:
    program, bare = Program(tmp_path, server.target, server.admin_key), session.partition("/")[2]
    empty = (await client.sessions.create(spec=SPEC)).name
    third = (await client.sessions.create(spec=SPEC)).name
    target, damaged = tmp_path / "kept.tar.gz", tmp_path / "damaged.tar.gz"
    damaged.write_bytes(b"no archive")
    results = await program.many(
        [
            ["archives", "create", session],
            ["archives", "create", session],
            ["archives", "create", session, "--force", "--json"],
            ["archives", "ls"],
            ["archives", "show", "-"],
            ["archives", "get", "-", "-o", str(target)],
            ["archives", "get", bare[-12:], "-o", str(target)],
            ["archives", "restore", empty, "--from", session],
            ["archives", "restore", third, "--file", str(target)],
            ["archives", "restore", third, "--file", str(target), "--json"],
            ["archives", "restore", third, "--file", str(target), "--from", session],
            ["usage"],
            ["archives", "cleanup"],
            ["archives", "cleanup", "--older-than", "0s", "--dry-run"],
            ["archives", "rm", session],
            ["archives", "ls", "--json"],
            ["archives", "rm", session],
            ["archives", "create", session, "--format", "zip"],
            ["archives", "cleanup", "--older-than", "90"],
            ["archives", "restore", third, "--file", "nowhere.tar.gz"],
            ["archives", "restore", third, "--file", str(damaged)],
        ]
    )
    codes = [0, 5, 0, 0, 0, 0, 2, 0, 0, 5, 2, 0, 2, 0, 0, 0, 3, 2, 2, 2, 5]
    assert [each.code for each in results] == codes, results
    assert "exists already: --force replaces it" in results[1].err
    assert "already exists: --force replaces it" in results[9].err or "exists already: --force" in results[9].err
    assert "--older-than" in results[12].err
    assert "90 of what? Write 90s, 90m, 90h or 90d" in results[18].err
    assert str(damaged) in results[20].err.replace("\n", "")
    assert "restore-" not in results[20].err
    archive = f"archives/{bare}"
    assert results[0].out == f"{archive}: 2 files, 5.0 MiB\n"
    assert json.loads(results[2].out)["name"] == archive
    assert bare[-12:] in results[3].out
    assert "2 files, 5.0 MiB" in results[4].out
    assert target.read_bytes()[:2] == b"\x1f\x8b"
    assert "2 files, 5.0 MiB" in results[7].out
    assert "2 files, 5.0 MiB" in results[8].out
    assert "5.0 MiB in 1 archives" in results[11].out
    assert results[13].out == f"{archive}\n1 archives would be deleted, 5.0 MiB\n"
    assert await client.files.read(third, "a/b") == await client.files.read(empty, "a/b") == DATA
    assert [each.path async for each in client.files.list(third, recursive=True)] == ["a/b", "c"]


async def test_an_archive_that_was_made_by_hand_is_refused_with_what_it_lacks_and_what_to_do(
    server: RunningServer, client: Client, tmp_path: Path
) -> None:
    program = Program(tmp_path, server.target, server.admin_key)
    session = (await client.sessions.create(spec=SPEC)).name
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "notes.txt").write_text("hello")
    (tmp_path / "notes.txt").write_text("hello")
    commands = {
        "file.tar.gz": ["notes.txt"],
        "folder.tar.gz": ["workspace"],
        "ours-but-gnu.tar.gz": ["--format=gnu", "workspace/notes.txt"],
        "ours-but-dated.tar.gz": ["--format=posix", "workspace/notes.txt"],
        "elsewhere.tar.gz": ["--format=ustar", "notes.txt"],
        "without.tar.gz": ["--format=ustar", "workspace/notes.txt"],
    }
    for name, arguments in commands.items():
        subprocess.run(["tar", "-C", tmp_path, "-czf", tmp_path / name, *arguments], check=True)  # noqa: ASYNC221
    results = await program.many(
        [["archives", "restore", session, "--file", str(tmp_path / each)] for each in commands]
    )
    for name, result in zip(commands, results, strict=True):
        told = " ".join(result.err.split())
        assert result.code == 5, told
        assert name in told, told
        assert "nothing was changed" in told, told
        assert "stationmaster archives create" in told, told
        assert "workspace/PATH" in told, told
        assert "manifest.json" in told, told
        assert "stationmaster files put" in told, told
    assert [each.path async for each in client.files.list(session, recursive=True)] == []


async def test_why_nothing_was_restored_is_told_also_when_the_uploaded_file_stays(
    client: Client, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, original = tmp_path / "damaged.tar.gz", Files.delete
    damaged.write_bytes(b"no archive")

    async def elsewhere(self: Files, session: str, path: str) -> None:
        await original(self, session, f"{path}/none")

    monkeypatch.setattr(Files, "delete", elsewhere)
    with pytest.raises(errors.FailedPrecondition) as error:
        await _restore_file(Run(client, Output(as_json=True)), session, damaged, force=False)
    assert error.value.reason == "ARCHIVE_REFUSED"


async def test_a_terminal_sees_how_far_a_download_is(
    server: RunningServer, client: Client, session: str, tmp_path: Path
) -> None:
    await client.archives.create(session)
    program = Program(tmp_path, server.target, server.admin_key)
    async with at_terminal(program, "archives", "get", "-", "-o", str(tmp_path / "a.tar.gz")) as screen:
        assert await screen.ended() == 0
        assert "━" in screen.screen
        assert "a.tar.gz (5.0 MiB)" in screen.screen.replace("\n", "")
