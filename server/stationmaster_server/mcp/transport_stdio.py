"""Messages over the standard input and output of a leashed process, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage

from stationmaster_server.mcp import cleaning
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Ended, Fate
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.mcp.process import Process
from stationmaster_server.mcp.rate import Rate

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]

_CHUNK_BYTES = 64 * 1024


@asynccontextmanager
async def stdio(
    command: Sequence[str], environment: Mapping[str, str], mask: Mask, fate: Fate, bounds: Bounds
) -> AsyncIterator[tuple[Incoming, Outgoing]]:
    """Run the command and speak with it; raises Ended (in a group) when it ends or does what no server may."""
    process = await Process.start(command, get_default_environment() | dict(environment), bounds, mask)
    to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    pipe = _Pipe(process, fate, bounds, mask)
    fate.said = pipe.said
    try:
        async with anyio.create_task_group() as tasks, to_session, incoming, outgoing, from_session:
            tasks.start_soon(pipe.read, to_session)
            tasks.start_soon(pipe.write, from_session)
            try:
                yield incoming, outgoing
            finally:
                tasks.cancel_scope.cancel()
    finally:
        await _to_its_end(process.stop())


class _Pipe:
    """Both directions of one process."""

    def __init__(self, process: Process, fate: Fate, bounds: Bounds, mask: Mask) -> None:
        self._process = process
        self._fate = fate
        self._bounds = bounds
        self._mask = mask
        self._rate = Rate(bounds)
        self._strays = 0
        self._stray_line = ""
        self._asked: int = 0

    def said(self) -> str:
        """What the process complained about; else the last that it wrote where messages belong."""
        return self._process.said() or self._stray_line

    async def read(self, to_session: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        """Until the process closes its output."""
        try:
            async for line in self._lines():
                await self._rate.take(len(line))
                message = self._message(line)
                if message is not None:
                    await to_session.send(message)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the session is closing
        except Ended as ended:
            raise self._fate.end(ended) from ended
        raise self._fate.end(Ended(self._fate.with_complaint(await self._process.end())))

    async def write(self, from_session: MemoryObjectReceiveStream[SessionMessage]) -> None:
        """Until the session closes, or the process reads no more."""
        try:
            async for message in from_session:
                if isinstance(message.message, types.JSONRPCRequest) and isinstance(message.message.id, int):
                    self._asked = max(self._asked, message.message.id)
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
                self._process.input.write(line.encode())
                await self._process.input.drain()
        except (ConnectionError, RuntimeError, OSError):
            # Most likely it ended, and its output tells how.
            await asyncio.sleep(self._bounds.exit_grace.total_seconds() * 2)
            raise self._fate.end(Ended(self._fate.with_complaint("it closed its input"))) from None

    async def _lines(self) -> AsyncIterator[bytes]:
        rest = bytearray()
        while chunk := await self._process.output.read(_CHUNK_BYTES):
            *lines, last = chunk.split(b"\n")
            for line in lines:
                rest += line
                if rest:
                    yield bytes(rest)
                rest.clear()
            rest += last
            if len(rest) > self._bounds.message_bytes:
                raise Ended(f"it wrote a message of more than {self._bounds.message_bytes:,} bytes", is_fault=True)
        # What is left has no end: whoever wrote it died meanwhile, which is no fault of its messages.

    def _message(self, line: bytes) -> SessionMessage | None:
        try:
            message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            self._stray(line)
            return None
        if isinstance(message, types.JSONRPCResponse) and isinstance(message.id, int) and message.id > self._asked:
            raise Ended(f"it answered a request {message.id} that was never made", is_fault=True)
        return SessionMessage(message)

    def _stray(self, line: bytes) -> None:
        """Some write a banner or a log where messages belong; that is borne, a broken message is not."""
        shown = cleaning.label(self._mask.text(line.decode(errors="replace")), 120)
        if line.lstrip()[:1] in (b"{", b"["):
            raise Ended(f"it wrote what is no message: {shown}", is_fault=True)
        self._strays += 1
        self._stray_line = shown
        if self._strays > self._bounds.stray_lines:
            raise Ended(f"it writes to its output what is no message: {shown}", is_fault=True)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work that no cancellation may interrupt; the work itself is bounded in time."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
