"""The program of a pool's process: calls the functions that it is sent, one after another, and answers.

Of the standard library only, so that it starts quickly: `python -P pool_worker.py`. A frame is a letter, its length in
eight bytes, and what is pickled. It ends when its input does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

# Whatever is unpickled here came from the server, or was pickled here.
# ruff: noqa: S301

HEAD = struct.Struct("!cQ")
SETUP, REQUEST = b"S", b"Q"
READY, BEGUN, RESULT, RAISED, FAILED, MEMORY = b"R", b"B", b"A", b"X", b"F", b"M"
"""It may be called; it has begun; the result; what was raised; what was raised, in words; it needed too much memory."""
MAX_BYTES = 64 * 1024**2
"""Of a frame, in either direction."""
_TEXT = 4_000
_TRACE = 12_000
_PR_SET_DUMPABLE = 4
_NICE = 5
"""The server answers first, then they compute."""

Said = tuple[str, str]
"""What was raised, and its traceback."""


class Answers:
    """Where the answers go."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe

    def send(self, kind: bytes, data: bytes = b"") -> None:
        """Send a frame."""
        self._pipe.write(HEAD.pack(kind, len(data)))
        self._pipe.write(data)
        self._pipe.flush()


def main() -> None:
    """Serve until the input ends."""
    _hide()
    requests, pipe = _private_pipes()
    answers = Answers(pipe)
    memory, path = pickle.loads(_read(requests) or b"")
    sys.path[:] = path
    _confine(memory)
    answers.send(READY)
    while (request := _read(requests)) is not None:
        if not serve(request, answers) or _peak_bytes() > memory / 2:
            return  # what comes next is not to suffer from what was before


def serve(request: bytes, answers: Answers) -> bool:
    """Call a function and answer; False when this process had better not be called again."""
    try:
        answers.send(*_answer(request, answers))
    except MemoryError:
        answers.send(MEMORY)
        return False
    return True


def _answer(request: bytes, answers: Answers) -> tuple[bytes, bytes]:
    try:
        function, arguments = pickle.loads(request)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever an import raises is the caller's to know
        return FAILED, pickle.dumps((f"it cannot be called there: {_words(error)}", _trace(error)))
    answers.send(BEGUN)
    return _outcome(function, arguments)


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bytes, bytes]:
    try:
        result = function(*arguments)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
        return _raised(error)
    try:
        data = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - pickling calls methods of anybody's
        return FAILED, pickle.dumps((f"what it returned cannot be sent: {_words(error)}", _trace(error)))
    if len(data) > MAX_BYTES:
        return FAILED, pickle.dumps((f"what it returned has {len(data)} bytes, at most {MAX_BYTES} can be sent", ""))
    return RESULT, data


def _raised(error: BaseException) -> tuple[bytes, bytes]:
    """The exception itself where it survives the way, else in words."""
    said: Said = (_words(error), _trace(error))
    try:
        data = pickle.dumps((error, said[1]), pickle.HIGHEST_PROTOCOL)
        # What is no Exception (an exit, a cancellation) would mean something else to the caller.
        if isinstance(error, Exception) and len(data) <= MAX_BYTES and type(pickle.loads(data)[0]) is type(error):
            return RAISED, data
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001, S110 - then in words
        pass
    return FAILED, pickle.dumps(said)


def _words(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - anybody's method
        text = "its text cannot be had"
    return f"{type(error).__name__}: {text}"[:_TEXT]


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))[-_TRACE:]
    except Exception:  # noqa: BLE001 - as above
        return ""


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Input and output, taken away from whatever is called here, which may read and print."""
    requests, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def _read(pipe: BinaryIO) -> bytes | None:
    head = pipe.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    data = pipe.read(HEAD.unpack(head)[1])
    return data if len(data) == HEAD.unpack(head)[1] else None


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _hide() -> None:
    """As the leash does (this program imports nothing of ours): it has texts and data of every organization."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _confine(memory: int) -> None:
    """Bound what it takes from the others on this machine."""
    # Private memory that it can write to: unlike the address space, it has no reservations that nothing is kept in.
    if sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        memory = memory if most == resource.RLIM_INFINITY else min(memory, most)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    # One byte: Linux hands a core to a program (core_pattern `|...`) whatever the limit is, but for this one.
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 0 if most == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (least, least))
    with contextlib.suppress(OSError):
        os.nice(_NICE)


if __name__ == "__main__":
    main()
