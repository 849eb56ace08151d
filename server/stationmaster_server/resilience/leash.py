"""Runs a command whose whole family of processes ends when this server ends, in whatever way.

A program of its own, of the standard library only: `python -I -S leash.py PARENT_PID GRACE COMMAND...`. The command
inherits standard input, output and error; nothing is copied. The leash waits for the end of the command, of the server
or for a signal, ends every descendant (on Linux those that made themselves daemons too, for it is their reaper), and
hands the command's exit code on; 128 and the number of a signal where that ended it, as a shell does.

It is given the command's environment and secrets in that, so nobody else looks into it, and no core file is written.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

GRACE_SECONDS = 2.0
"""Between asking processes to end and ending them, unless the command is given another grace."""
_PATIENCE_SECONDS = 10.0
"""How long to go on ending what does not die (a process in the kernel's hands)."""
_POLL_SECONDS = 0.5
"""How often to look at the parent where the system cannot tell of its end."""
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_BY_SIGNAL = 128
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def leashed(command: Sequence[str], grace_seconds: float = GRACE_SECONDS) -> list[str]:
    """The command line that runs `command` on a leash of this process; without grace it is ended, not asked to."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(grace_seconds), *command]


def how(code: int) -> str:
    """How a command on a leash ended, by the exit code of that."""
    number = -code if code < 0 else code - _BY_SIGNAL
    name = {one.value: one.name for one in signal.Signals}.get(number)
    return f"ended with exit code {code}" if name is None else f"was ended by signal {number} ({name})"


def hide() -> None:
    """No other process of the user reads this one's memory and environment, and no core file is written of it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    hide()
    parent, grace_seconds, command = int(arguments[0]), float(arguments[1]), list(arguments[2:])
    with contextlib.suppress(PermissionError):  # a leader of a session already
        os.setsid()
    wake = _wake_up_on_signals()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _become(command)
    _let_go_of_pipes()
    code = _watch(child, parent, wake, grace_seconds)
    _end_all(child, 0.0 if code is None else grace_seconds)
    if code is None:
        return _BY_SIGNAL + signal.SIGTERM
    return code if code >= 0 else _BY_SIGNAL - code


def _become(command: Sequence[str]) -> None:
    # Should the leash itself be killed, the command at least goes with it.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        os.setsid()
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - the very purpose
    except OSError as error:
        os.write(2, f"{command[0]} cannot be run: {error.strerror}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _let_go_of_pipes() -> None:
    # Or the server would not see the command close its output.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def _wake_up_on_signals() -> int:
    wake, bell = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(bell, False)
    signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
    for number in (*_STOPPING, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return wake


def _watch(child: int, parent: int, wake: int, grace_seconds: float) -> int | None:
    """The code of the command once it ended; None when it was told to, with the parent or by a signal, and did not."""
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    life = _life_of(parent)
    if life is not None:
        poll.register(life, select.POLLIN)
    deadline = None
    while (code := _reap(child)) is None:
        now = time.monotonic()
        if deadline is None and (_told_to_stop(wake) or os.getppid() != parent):
            deadline = now + grace_seconds
            _signal_all(child, signal.SIGTERM if grace_seconds else signal.SIGKILL)
        if deadline is not None and now >= deadline:
            return None
        if deadline is not None:
            _told_to_stop(wake)
            time.sleep(0.01)
        else:
            poll.poll(None if life is not None else _POLL_SECONDS * 1000)
    return code


def _life_of(parent: int) -> int | None:
    """A descriptor that becomes readable when the parent ends, where the system has such."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(parent)
    except OSError:  # it is gone, or the kernel is old: `getppid` tells
        return None


def _told_to_stop(wake: int) -> bool:
    try:
        return any(number in _STOPPING for number in os.read(wake, 4096))
    except BlockingIOError:
        return False


def _reap(child: int) -> int | None:
    """Takes leave of whoever ended; the exit code of the command, once it did."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
    return code


def _end_all(child: int, grace_seconds: float) -> None:
    """Ends every descendant: first by asking, if there is time for that, then by force."""
    _signal_all(child, signal.SIGTERM if grace_seconds else signal.SIGKILL)
    patient_until = time.monotonic() + grace_seconds
    give_up = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < give_up:
        _reap(child)
        if not _descendants(child):
            return
        if time.monotonic() >= patient_until:
            _signal_all(child, signal.SIGKILL)
        time.sleep(0.01)


def _signal_all(child: int, number: int) -> None:
    for pid in _descendants(child):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _descendants(child: int) -> list[int]:
    """Every living descendant, the eldest first; elsewhere than on Linux the command's group, as a negative number."""
    if not sys.platform.startswith("linux"):
        try:
            os.killpg(child, 0)
        except (ProcessLookupError, PermissionError):
            return []
        return [-child]
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The name of a program stands in parentheses and may hold any character.
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    children.setdefault(int(parent), []).append(int(entry.name))
    family, at = [os.getpid()], 0
    while at < len(family):
        family.extend(children.get(family[at], ()))
        at += 1
    return family[1:]


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
