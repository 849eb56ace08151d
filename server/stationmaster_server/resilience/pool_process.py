"""A process of a pool, from outside: started on a leash, asked one thing at a time, ended by force."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import sys
from asyncio import subprocess
from datetime import timedelta
from typing import Any

from stationmaster_server.errors import RemoteError
from stationmaster_server.resilience import pool_worker
from stationmaster_server.resilience.leash import how, leashed

_COMMAND = (sys.executable, "-P", pool_worker.__file__)
_INHERITED = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ")
"""Of the environment: nothing that could be a secret."""
_PIPE_BYTES = 1024**2
_TO_BEGIN = 60.0
_TO_EXIT = 2.0
_TO_END = 15.0
"""Seconds for the leash, which is itself patient for ten."""


class Ended(Exception):
    """The process is gone, or of no use; the message says how."""


class TimedOut(Exception):
    """The function took longer than it may; the process is still at it."""


class OutOfMemory(Exception):
    """The function needed more memory than a process may have."""


class PoolProcess:
    """Made by `start`; `end` must be called."""

    def __init__(self, process: subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a process of a pool needs pipes")
        self._process, self._input, self._output = process, process.stdin, process.stdout
        self._retiring: asyncio.TimerHandle | None = None
        self._spent = False  # it ran out of memory, and ends
        self._busy = True

    @classmethod
    async def start(cls) -> PoolProcess:
        """Start one, which is not ready yet. OSError when the system has none to give."""
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        process = await subprocess.create_subprocess_exec(
            *leashed(_COMMAND, grace_seconds=0.0),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            limit=_PIPE_BYTES,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Of the leash."""
        return self._process.pid

    @property
    def usable(self) -> bool:
        """Whether it can be called, as far as is known."""
        return not (self._busy or self._spent or self._process.returncode is not None or self._output.at_eof())

    async def ready(self, memory_bytes: int) -> None:
        """Tell it its bounds and wait until it can be called. Raises Ended."""
        await self._soon(pool_worker.SETUP, pickle.dumps((memory_bytes, sys.path)), pool_worker.READY)

    def retire_after(self, timer: asyncio.TimerHandle) -> None:
        """Run the timer unless the process is needed before."""
        self._retiring = timer

    def _wanted(self) -> None:
        if self._retiring is not None:
            self._retiring.cancel()
            self._retiring = None

    async def begin(self, request: bytes) -> None:
        """Hand it a call; returns when its function begins. Raises Ended; RemoteError when it cannot be called."""
        self._wanted()
        await self._soon(pool_worker.REQUEST, request, pool_worker.BEGUN)

    async def result(self, timeout: timedelta) -> Any:
        """What the function returned, or raised; RemoteError when that cannot be sent.

        Raises TimedOut, Ended, OutOfMemory too.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                data = await self._receive(pool_worker.RESULT)
        except TimeoutError:
            if self._busy:
                raise TimedOut from None
            raise  # it is the function's own
        return pickle.loads(data)  # noqa: S301 - from our own process

    async def _soon(self, kind: bytes, data: bytes, wanted: bytes) -> None:
        """Importing is no part of a call's own time, but it is bounded."""
        try:
            async with asyncio.timeout(_TO_BEGIN):
                await self._send(kind, data)
                await self._receive(wanted)
        except TimeoutError:
            raise Ended(f"did not begin within {_TO_BEGIN:g} s") from None

    async def _send(self, kind: bytes, data: bytes) -> None:
        self._busy = True
        try:
            self._input.write(pool_worker.HEAD.pack(kind, len(data)))
            self._input.write(data)
            await self._input.drain()
        except ConnectionError:
            raise Ended(await self._how()) from None

    async def _receive(self, wanted: bytes) -> bytes:
        try:
            kind, size = pool_worker.HEAD.unpack(await self._output.readexactly(pool_worker.HEAD.size))
            if size > pool_worker.MAX_BYTES:
                raise Ended(f"it sent {size} bytes at once")
            data = await self._output.readexactly(size)
        except asyncio.IncompleteReadError:
            raise Ended(await self._how()) from None
        self._busy = kind == pool_worker.BEGUN
        if kind == pool_worker.MEMORY:
            self._spent = True
        if kind != wanted:
            raise _error(kind, data)
        return data

    async def _how(self) -> str:
        """How it ended."""
        with contextlib.suppress(TimeoutError):  # then it only closed its output
            async with asyncio.timeout(_TO_EXIT):
                await self._process.wait()
        await self.end()
        code = self._process.returncode
        return "closed its output" if code is None else how(code)

    async def end(self) -> None:
        """End it and whatever it started, by force; returns when it is gone. Doing so again does nothing."""
        self._wanted()
        await asyncio.shield(self._end())

    async def _end(self) -> None:
        self._input.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(_TO_END):
                await self._process.wait()
        except TimeoutError:  # its leash hangs: the system ends the process with it
            self._process.kill()
            await self._process.wait()


def _error(kind: bytes, data: bytes) -> Exception:
    """What an answer that is no result raises."""
    match kind:
        case pool_worker.RAISED | pool_worker.FAILED:
            what, trace = pickle.loads(data)  # noqa: S301 - from our own process
            error = what if isinstance(what, Exception) else RemoteError(what)
            error.add_note(f"In a process of the pool:\n{trace}")
            return error
        case pool_worker.MEMORY:
            return OutOfMemory()
        case _:
            return RemoteError(f"the process answered {kind!r}, which nobody asked")
