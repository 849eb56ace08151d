"""The process that keeps one PostgreSQL running while servers use it, and stops it after the last, however that ended.

Run by path, as a program of its own, with the standard library alone: it outlives the server that started it and
should weigh nothing. Every server holds a shared lock on `servers.lock`; the kernel drops it with the process, also at
kill -9. The supervisor waits for the exclusive lock: it has it exactly when no server is left, and none can join until
it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

LOOK_EVERY = 0.2  # seconds between looks whether PostgreSQL still runs
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before PostgreSQL is started again
HEALTHY_AFTER = 10.0  # seconds of running after which the pauses begin anew
TRIES = 5  # starts that may fail before the first success
STOP_LIMIT = 30.0
LOG_LIMIT = 16 << 20
# None of the server's own: its variables may hold keys, and PostgreSQL may run under an account that others use, too.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}


class Adopted:
    """A PostgreSQL that an earlier supervisor started and left behind; stands in for `subprocess.Popen`."""

    def __init__(self, pid: int, pgdata: Path) -> None:
        self.pid = pid
        self._pgdata = pgdata

    def poll(self) -> int | None:
        """None while it runs."""
        return None if is_postmaster(self.pid, self._pgdata) else 0

    def send_signal(self, number: int) -> None:
        """As of `Popen`."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def is_postmaster(pid: int, pgdata: Path) -> bool:
    """Whether the process is the PostgreSQL of this folder, and not another one that got its number."""
    try:
        os.kill(pid, 0)
        if Path("/proc/self/cwd").exists():
            return Path(f"/proc/{pid}/cwd").readlink() == pgdata.resolve()
    except OSError:
        return False
    arguments = subprocess.run(["/bin/ps", "-p", str(pid), "-o", "args="], capture_output=True, text=True, check=False)
    return str(pgdata) in arguments.stdout


def find_postmaster(pgdata: Path) -> tuple[int, bool] | None:
    """The running PostgreSQL of a folder, and whether it takes connections."""
    try:
        lines = (pgdata / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
    except (OSError, ValueError, IndexError):
        return None
    ready = len(lines) > 7 and lines[7].strip() == "ready"
    return (pid, ready) if is_postmaster(pid, pgdata) else None


def lock_within(file: TextIO, how: int, seconds: float) -> bool:
    """Whether the lock was got in time."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                return False
            time.sleep(0.02)
        else:
            return True


class Supervisor:
    """One PostgreSQL, as the plan of `server.py` describes it."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.folder = Path(plan["folder"])
        self.pgdata = Path(plan["pgdata"])
        self.command: list[str] = plan["command"]
        self.account: dict[str, Any] = plan["account"]
        self.unused = threading.Event()

    def run(self) -> None:
        """Until no server is left."""
        with (self.folder / "supervisor.lock").open("a") as mine:
            if not lock_within(mine, fcntl.LOCK_EX, 2.0):
                return  # another one is there
            mine.truncate(0)
            mine.write(f"{os.getpid()}\n")  # for people who look
            mine.flush()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda *_: self.unused.set())
            threading.Thread(target=self._wait_until_unused, daemon=True).start()
            self._stop(self._keep_running())

    def _wait_until_unused(self) -> None:
        descriptor = os.open(self.folder / "servers.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # kept until this process ends
        self.unused.set()

    def _keep_running(self) -> subprocess.Popen[bytes] | Adopted:
        found = find_postmaster(self.pgdata)
        postgres = Adopted(found[0], self.pgdata) if found else self._start()
        started, pause, failures, was_ready = time.monotonic(), FIRST_PAUSE, 0, False
        while not self.unused.wait(LOOK_EVERY):
            if postgres.poll() is None:
                was_ready = was_ready or bool((found := find_postmaster(self.pgdata)) and found[1])
                continue
            failures += 1
            if not was_ready and failures == TRIES:
                break  # the server that waits for it reads the reason in the log
            pause = FIRST_PAUSE if time.monotonic() - started > HEALTHY_AFTER else min(pause * 2, LONGEST_PAUSE)
            if self.unused.wait(pause):
                break
            postgres, started = self._start(), time.monotonic()
        return postgres

    def _start(self) -> subprocess.Popen[bytes]:
        # What is left of a crashed PostgreSQL may name a process that has nothing to do with it.
        if find_postmaster(self.pgdata) is None:
            (self.pgdata / "postmaster.pid").unlink(missing_ok=True)
        log = self.folder / "postgres.log"
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.rename(log.with_suffix(".log.1"))
        with log.open("a") as out:
            return subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=ENVIRONMENT, **self.account
            )

    def _stop(self, postgres: subprocess.Popen[bytes] | Adopted) -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, and what is left
            give_up = time.monotonic() + STOP_LIMIT
            if postgres.poll() is None:
                postgres.send_signal(number)
            while postgres.poll() is None and time.monotonic() < give_up:
                time.sleep(0.01)


def detach() -> None:
    """Become nobody's child, in a session of its own: no terminal's Ctrl-C, and no zombie for the server to reap."""
    if os.fork() != 0:
        os._exit(0)
    os.setsid()


if __name__ == "__main__":
    detach()
    Supervisor(json.loads(sys.argv[1])).run()
