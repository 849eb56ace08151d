"""Functions that the tests of the pools call in processes and threads."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason


def add(first: int, second: int) -> int:
    return first + second


def echo(value: Any) -> Any:
    return value


def process_id() -> int:
    return os.getpid()


def environment() -> dict[str, str]:
    return dict(os.environ)


def write_process_id(path: Path) -> None:
    """Atomically, so that a reader sees all of it."""
    (path.parent / "being written").write_text(str(os.getpid()))
    (path.parent / "being written").replace(path)


def busy_in_c(path: Path) -> None:
    """For ever in C with the interpreter's lock held: no signal handler of Python's and no other thread ever runs."""
    write_process_id(path)
    re.match(r"(a+)+$", "a" * 100 + "b")


def sleep_for_ever(path: Path) -> None:
    write_process_id(path)
    time.sleep(10_000)


def stubborn_with_a_child(path: Path) -> None:
    """Ignores requests to stop, and has a child that does too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10_000)"])
    (path.parent / "child").write_text(str(child.pid))
    sleep_for_ever(path)


def exit_at_once(code: int) -> None:
    os._exit(code)


def dumpable() -> tuple[int, tuple[int, int]]:
    """Whether others may look into this process, and how large its core files may be."""
    return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)


def segfault() -> None:
    ctypes.string_at(0)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hog(size_bytes: int) -> int:
    return len(bytearray(size_bytes))


def hog_step_by_step() -> None:
    kept = []
    while True:
        kept.append(bytearray(1024**2))


def ask_system_to_exit() -> None:
    sys.exit(3)


def print_and_read() -> str:
    sys.stdout.write("this is no answer")
    sys.stdout.flush()
    os.write(1, b"neither is this")
    return sys.stdin.read()


def refuse(field: str) -> None:
    raise InvalidArgument(Reason.INVALID_FIELD, f"{field} is bad", FieldViolation(field, "bad"))


class Awkward(Exception):
    """Cannot be unpickled: its constructor takes more than its text."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} {number}")


def raise_awkward() -> None:
    raise Awkward(7, "awkward")


def raise_with_a_lock() -> None:
    raise ValueError("it holds", threading.Lock())


def raise_without_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    raise Mute


def raise_timeout() -> None:
    raise TimeoutError("my own")


def return_a_lock() -> Any:
    return threading.Lock()


def return_much(size_bytes: int) -> bytes:
    return b"x" * size_bytes


def wait_for(event: threading.Event) -> str:
    event.wait()
    return "went on"


def wait_for_file(path: Path) -> str:
    """Its content, once there is any."""
    while not (path.exists() and (text := path.read_text())):
        time.sleep(0.01)
    return text
