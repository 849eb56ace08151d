"""A server's process: leashed to ours, with a bounded memory of what it complained about, and an end within bounds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from stationmaster_server.mcp import cleaning
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Ended
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.mcp.rate import Rate
from stationmaster_server.resilience.leash import how, leashed

_CHUNK_BYTES = 64 * 1024
_TO_TERMINATE = timedelta(seconds=6)
"""The leash asks the family of processes to end and then ends it; this is longer."""


class Process:
    """A running server. `start` makes it, `stop` must be called."""

    def __init__(self, process: asyncio.subprocess.Process, bounds: Bounds, mask: Mask) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("a server's process needs pipes")
        self.input, self.output, self._errors = process.stdin, process.stdout, process.stderr
        self._process = process
        self._bounds = bounds
        self._mask = mask
        self._tail = bytearray()
        self._is_cut = False
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], bounds: Bounds, mask: Mask) -> Process:
        """Start it; raises Ended when that fails."""
        try:
            process = await asyncio.create_subprocess_exec(
                *leashed(command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(environment),
                limit=_CHUNK_BYTES,
            )
        except (OSError, ValueError) as error:
            raise Ended(f"its command cannot be started: {error}") from error
        return cls(process, bounds, mask)

    @property
    def pid(self) -> int:
        """The leash's process id."""
        return self._process.pid

    def said(self) -> str:
        """The last of what it wrote to its standard error."""
        text = self._mask.text(self._tail.decode(errors="replace"))
        # Where it was cut, the rest of a secret may stand.
        return cleaning.content(text[self._mask.longest :] if self._is_cut else text).strip()

    async def end(self) -> str:
        """How it ended, after its output did."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._bounds.exit_grace.total_seconds()):
                await asyncio.shield(self._listening)
                code = await self._process.wait()
                return f"its process {how(code)}"
        return "it closed its output"

    async def stop(self) -> None:
        """End it, with all of its descendants."""
        draining = asyncio.create_task(self._drain())
        try:
            self.input.close()
            if not await self._ends_within(self._bounds.exit_grace):
                self._signal("terminate")
                if not await self._ends_within(_TO_TERMINATE):
                    self._signal("kill")
                    await self._ends_within(self._bounds.exit_grace)
            # Nobody holds its pipes any more, so both come to their end by themselves.
            await asyncio.wait([draining, self._listening], timeout=self._bounds.exit_grace.total_seconds())
        finally:
            for task in (draining, self._listening):
                task.cancel()
            await asyncio.gather(draining, self._listening, return_exceptions=True)
            # Otherwise a pipe that a survivor holds would keep it open, and there is no public way.
            transport: Any = getattr(self._process, "_transport", None)
            if transport is not None:
                transport.close()

    def _signal(self, how: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            getattr(self._process, how)()

    async def _ends_within(self, limit: timedelta) -> bool:
        # Asked often instead of awaited once: `wait` also waits for pipes that a survivor may hold.
        give_up = asyncio.get_running_loop().time() + limit.total_seconds()
        while self._process.returncode is None:
            if asyncio.get_running_loop().time() > give_up:
                return False
            await asyncio.sleep(0.01)
        return True

    async def _drain(self) -> None:
        # A server that is stuck in writing does not see that its input was closed.
        while await self.output.read(_CHUNK_BYTES):
            pass

    async def _listen(self) -> None:
        rate = Rate(self._bounds)
        while chunk := await self._errors.read(_CHUNK_BYTES):
            self._tail += chunk
            room = self._bounds.stderr_bytes + self._mask.longest
            self._is_cut |= len(self._tail) > room
            del self._tail[:-room]
            with contextlib.suppress(Ended):  # slowed for as long as it goes on
                await rate.take(len(chunk))
