"""A pseudo-terminal: what a person sees and types."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.client.cli.program import Program

_COLOUR = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal:
    """A command that runs at a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, keyboard: int) -> None:
        self.process = process
        self._keyboard = keyboard
        self._arrived = asyncio.Condition()
        self._raw = b""

    @property
    def raw(self) -> str:
        """All that was printed."""
        return self._raw.decode(errors="replace")

    @property
    def screen(self) -> str:
        """All that was printed, without colours."""
        return _COLOUR.sub("", self.raw).replace("\r\n", "\n")

    def type(self, text: str) -> None:
        """Type; \\x03 is Ctrl-C, \\x04 Ctrl-D."""
        os.write(self._keyboard, text.encode())

    async def see(self, text: str, *, seconds: float = 20) -> None:
        """Wait until a text is on the screen."""
        try:
            async with asyncio.timeout(seconds), self._arrived:
                await self._arrived.wait_for(lambda: text in self.screen)
        except TimeoutError:
            raise AssertionError(f"{text!r} never came:\n{self.screen}") from None

    async def sees_again(self, text: str) -> None:
        """Wait until a text is on the screen for the second time."""
        async with asyncio.timeout(8), self._arrived:
            await self._arrived.wait_for(lambda: self.screen.count(text) > 1)

    async def ended(self, pressing: str = "") -> int:
        """Wait for the end, pressing a key meanwhile; the exit code.

        Pressed once, a key can come between the prompt and the reading of it, which no person is fast enough for.
        Pressed again too soon, Ctrl-C meets an interpreter that is ending already.
        """
        for _ in range(4):
            if pressing:
                self.type(pressing)
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    return await self.process.wait()
        raise AssertionError(f"it never ended:\n{self.screen}")

    async def follow(self) -> None:
        """Read what is printed, until the command ends."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        with os.fdopen(os.dup(self._keyboard), "rb", buffering=0) as file:
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
            # A terminal whose other side was closed is an error to the reader, not an end.
            with suppress(OSError):
                while data := await reader.read(65536):
                    async with self._arrived:
                        self._raw += data
                        self._arrived.notify_all()
            transport.close()


@asynccontextmanager
async def at_terminal(program: Program, *arguments: str, **more: str) -> AsyncIterator[Terminal]:
    """Run a command at a terminal of its own."""
    keyboard, screen = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _AS_A_SESSION, *arguments),
        env=program.environment(TERM="xterm", COLUMNS="120", **more),
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
    )
    os.close(screen)
    terminal = Terminal(process, keyboard)
    follower = asyncio.create_task(terminal.follow())
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await asyncio.wait([follower], timeout=5)
        follower.cancel()
        os.close(keyboard)


# The terminal must be the controlling one for Ctrl-C to become a signal.
_AS_A_SESSION = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from stationmaster_client.cli.main import main
main()
"""
