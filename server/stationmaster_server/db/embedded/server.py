"""`EmbeddedPostgres`: join the PostgreSQL of a data folder, starting it when it does not run."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TextIO

from stationmaster_server.db.embedded import supervisor
from stationmaster_server.db.embedded.cluster import Cluster, make_folder, prepare
from stationmaster_server.db.embedded.errors import EmbeddedPostgresError

logger = logging.getLogger(__name__)

SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "random_page_cost": "1.1",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A statement's text may hold what is nobody's business; its error is enough.
    "log_min_error_statement": "panic",
}
_STOP_LIMIT = 40.0  # a little more than the supervisor gives PostgreSQL
_OTHERS_REMAIN_AFTER = 0.5
_LOOK_EVERY = 1.0


class Membership:
    """One server's use of an embedded PostgreSQL, blocking: `join`, then `leave`, as the end of the process does."""

    def __init__(self, cluster: Cluster, lock: TextIO, plan: str) -> None:
        self.cluster = cluster
        self._lock = lock
        self._plan = plan

    @classmethod
    def join(
        cls,
        data_folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        limit: timedelta = timedelta(seconds=60),
        minimum_free_bytes: int = 256 << 20,
    ) -> Membership:
        """Use the PostgreSQL of the folder, after making and starting it where needed; EmbeddedPostgresError if not."""
        give_up = time.monotonic() + limit.total_seconds()
        folder = make_folder(data_folder)
        lock = (folder / "servers.lock").open("a")
        try:
            if not supervisor.lock_within(lock, fcntl.LOCK_SH, limit.total_seconds()):
                raise EmbeddedPostgresError(f"the PostgreSQL in {folder} is still stopping: try again, or see its log")
            with _exclusive(folder / "start.lock", give_up - time.monotonic()):
                cluster = prepare(folder, minimum_free_bytes=minimum_free_bytes)
                member = cls(cluster, lock, _plan(cluster, {**SETTINGS, **(settings or {})}))
                if not member.is_supervised():
                    member._start_supervisor()
                member._wait_until_ready(give_up)
        except BaseException:
            lock.close()
            raise
        return member

    def is_supervised(self) -> bool:
        """Whether the supervisor lives."""
        with self.cluster.supervisor_lock.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def supervise(self) -> None:
        """Start another supervisor when there is none; it takes over the PostgreSQL that runs."""
        with _exclusive(self.cluster.start_lock, 10.0):
            if not self.is_supervised():
                self._start_supervisor()

    def leave(self) -> None:
        """Use it no longer. Returns once PostgreSQL has ended, or at once when other servers use it."""
        self._lock.close()
        give_up = time.monotonic() + _STOP_LIMIT
        others_remain = time.monotonic() + _OTHERS_REMAIN_AFTER
        with self.cluster.servers_lock.open("a") as probe:
            while self.is_supervised() and time.monotonic() < give_up:
                if supervisor.lock_within(probe, fcntl.LOCK_SH, 0):
                    fcntl.flock(probe, fcntl.LOCK_UN)
                    if time.monotonic() > others_remain:
                        return
                time.sleep(0.02)

    def _start_supervisor(self) -> None:
        with self.cluster.log.open("a") as log:
            subprocess.run(
                [sys.executable, "-I", "-S", supervisor.__file__, self._plan],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=supervisor.ENVIRONMENT,
                check=True,
            )
        give_up = time.monotonic() + 5
        while not self.is_supervised() and time.monotonic() < give_up:
            time.sleep(0.005)

    def _wait_until_ready(self, give_up: float) -> None:
        while True:
            found = supervisor.find_postmaster(self.cluster.pgdata)
            if found and found[1]:
                return
            if time.monotonic() > give_up or not self.is_supervised():
                log = self.cluster.log
                raise EmbeddedPostgresError(f"the embedded PostgreSQL did not start; {log} ends with:\n{_tail(log)}")
            time.sleep(0.01)


class EmbeddedPostgres:
    """`async with EmbeddedPostgres(folder) as url`: the URL of a PostgreSQL that runs as long as any server uses it."""

    def __init__(
        self,
        data_folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        start_limit: timedelta = timedelta(seconds=60),
        minimum_free_bytes: int = 256 << 20,
    ) -> None:
        self._data_folder = data_folder
        self._settings = settings
        self._start_limit = start_limit
        self._minimum_free_bytes = minimum_free_bytes
        self._member: Membership | None = None
        self._guard: asyncio.Task[None] | None = None

    async def __aenter__(self) -> str:
        join = partial(
            Membership.join,
            self._data_folder,
            settings=self._settings,
            limit=self._start_limit,
            minimum_free_bytes=self._minimum_free_bytes,
        )
        joining = asyncio.create_task(asyncio.to_thread(join))
        try:
            member = self._member = await asyncio.shield(joining)
        except asyncio.CancelledError:
            await asyncio.to_thread((await joining).leave)  # a thread cannot be cancelled
            raise
        self._guard = asyncio.create_task(_guard(member), name="embedded-postgres")
        return member.cluster.url()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.gather(self._guard, return_exceptions=True)
        if self._member is not None:
            await asyncio.to_thread(self._member.leave)


async def _guard(member: Membership) -> None:
    """See to it that a supervisor lives, which in turn sees to PostgreSQL."""
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        try:
            if not member.is_supervised():
                logger.warning("the supervisor of the embedded PostgreSQL is gone; starting another one")
                await asyncio.to_thread(member.supervise)
        except (OSError, subprocess.SubprocessError, EmbeddedPostgresError):
            logger.exception("the embedded PostgreSQL cannot be supervised; trying again")


@contextlib.contextmanager
def _exclusive(path: Path, seconds: float) -> Iterator[None]:
    with path.open("a") as lock:
        if not supervisor.lock_within(lock, fcntl.LOCK_EX, seconds):
            raise EmbeddedPostgresError(f"another server holds {path} for too long: is it stuck while starting?")
        yield


def _plan(cluster: Cluster, settings: Mapping[str, str]) -> str:
    wanted = {**settings, "unix_socket_directories": str(cluster.socket_folder)}
    command = [str(cluster.binaries / "postgres"), "-D", str(cluster.pgdata)]
    for name, value in wanted.items():
        command += ["-c", f"{name}={value}"]
    return json.dumps(
        {
            "folder": str(cluster.folder),
            "pgdata": str(cluster.pgdata),
            "command": command,
            "account": cluster.account.arguments,
        }
    )


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1500:] if log.exists() else ""
