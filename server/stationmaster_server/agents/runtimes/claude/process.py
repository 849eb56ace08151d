"""The command line as a process on a leash, and the lines that go in and come out."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from claude_agent_sdk import CLIConnectionError, Transport

from stationmaster_server.resilience.leash import leashed

MAX_LINE_BYTES = 32 * 1024 * 1024
_LET_GO = 10.0
"""Seconds that a leash may take to end what it holds; it does so by force after two."""
_LAST_WORDS = 20

_log = logging.getLogger(__name__)


class Process(Transport):
    """Speaks JSON, a line each. Its environment is what it is given and nothing else: no secret of this server."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._command = leashed(command)
        self._environment = dict(environment)
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._errors: asyncio.Task[None] | None = None
        self._closing = False
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    async def connect(self) -> None:
        """Start it."""
        pipe = asyncio.subprocess.PIPE
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                cwd=self._folder,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                limit=MAX_LINE_BYTES,
            )
        except OSError as error:
            raise CLIConnectionError(f"the command line cannot be started: {error.strerror}") from error
        self._errors = asyncio.create_task(self._listen(), name="errors of a command line")

    async def write(self, data: str) -> None:
        """Send a line."""
        if self._process is None or self._process.stdin is None or not self.alive:
            raise CLIConnectionError("the command line has ended")
        try:
            self._process.stdin.write(data.encode())
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise CLIConnectionError("the command line has ended") from error

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """The messages, to the end of its output."""
        if self._process is None or self._process.stdout is None:
            raise CLIConnectionError("the command line was not started")
        try:
            async for line in self._process.stdout:
                if line.startswith(b"{"):
                    yield json.loads(line)
            if not self._closing:  # else whoever waits for an answer of it would wait for long
                raise CLIConnectionError("the command line has ended")
        except ValueError as error:  # no JSON, or longer than any message may be
            raise CLIConnectionError("the command line said what nobody understands") from error

    async def close(self) -> None:
        """End it, at once."""
        self._closing = True
        process = self._process
        if process is None:
            return
        # Its input stays open until it is gone: at the end of input it would refuse the calls that are open, and ask
        # the model again.
        try:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(_LET_GO):
                await process.wait()
        except ProcessLookupError:
            await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if self._errors is not None:
            self._errors.cancel()
            await asyncio.gather(self._errors, return_exceptions=True)

    def is_ready(self) -> bool:
        """Whether it can be spoken to."""
        return self.alive

    async def end_input(self) -> None:
        """Nothing: its input is open as long as it lives (see `close`)."""

    async def _listen(self) -> None:
        if self._process is None or self._process.stderr is None:
            return
        while chunk := await self._process.stderr.read(4096):
            self._last_words.append(chunk.decode(errors="replace"))
            _log.debug("the command line of the Claude Agent SDK says: %s", self._last_words[-1].rstrip())
