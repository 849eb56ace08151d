"""The provider as the command lines see it: a server of this process on the loopback, which passes their calls on.

It knows each by a token that is of no use elsewhere, so none ever holds the provider's key. It lets a command line ask
the model once for each answer that the turn wants, holds each attempt back until what it can cost is set aside, and
refuses whatever the program would do on its own account: go on with an answer that was cut, try to rescue one that
makes no sense, sum up, count. And it ends with this process: an orphan asks nobody.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx2

from stationmaster_server.agents.providers import ProviderSettings
from stationmaster_server.agents.runtimes.claude.exchange import (
    MAX_HEAD_BYTES,
    Head,
    begin,
    read_body,
    read_head,
    refuse,
    send,
)
from stationmaster_server.agents.runtimes.claude.line import Line
from stationmaster_server.agents.runtimes.claude.request import parse
from stationmaster_server.agents.runtimes.claude.stream import Events

_HEAD_SECONDS = 60.0
_MAX_ERROR_BYTES = 64 * 1024
_MESSAGES = "/v1/messages"
_OURS = frozenset(
    {
        "host",
        "connection",
        "content-encoding",
        "content-length",
        "transfer-encoding",
        "x-api-key",
        "authorization",
        "accept-encoding",
    }
)
_API = "https://api.anthropic.com"

_log = logging.getLogger(__name__)


class Relay:
    """Serves the lines that are open. Started with the first."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._clients: dict[str, httpx2.AsyncClient] = {}
        self._exchanges: set[asyncio.Task[Any]] = set()

    async def open(self, provider: ProviderSettings, model: str, longest_wait: timedelta) -> Line:
        """A line to this model of the provider."""
        async with self._starting:
            if self._server is None:
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_HEAD_BYTES)
        host, port = self._server.sockets[0].getsockname()[:2]
        self._lines = {token: line for token, line in self._lines.items() if line.is_open}
        line = Line(provider, model, f"http://{host}:{port}", longest_wait)
        self._lines[line.token] = line
        return line

    async def close(self) -> None:
        """End every exchange, and the server."""
        self._lines.clear()
        if self._server is not None:
            self._server.close()
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = asyncio.current_task()
        if exchange is not None:
            self._exchanges.add(exchange)
            exchange.add_done_callback(self._exchanges.discard)
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await read_head(reader)
            await self._answer(head, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError):
            _log.debug("a call of a command line ended before its answer", exc_info=True)
        except asyncio.CancelledError:
            if self._lines:  # not the end of the relay
                raise
        finally:
            writer.close()

    async def _answer(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = self._lines.get(head.headers.get("x-api-key", ""))
        if line is None or not line.is_open:
            await refuse(writer, 401, "authentication_error", "this line is not open")
            return
        if head.method != "POST" or head.path != _MESSAGES:
            await refuse(writer, 404, "not_found_error", "nothing is passed on but messages")
            return
        body = await read_body(reader, head)
        passing = asyncio.create_task(self._ask(head, body, line, writer), name="pass on a call")
        gone = asyncio.create_task(reader.read(1), name="wait until a command line goes")
        try:
            await asyncio.wait((passing, gone), return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
        finally:
            for task in (passing, gone):
                task.cancel()
            await asyncio.gather(passing, gone, return_exceptions=True)

    async def _ask(self, head: Head, body: bytes, line: Line, writer: asyncio.StreamWriter) -> None:
        async with line.one_at_a_time:
            request = await asyncio.to_thread(parse, body, line.model) if line.allowed else None
            if request is None or not line.allowed:
                await refuse(writer, 400, "invalid_request_error", "the turn has not announced this call")
                _log.debug("a call of a command line of %s was refused: not announced", line.model)
            elif not line.attempts_left:
                await refuse(writer, 503, "api_error", "it failed again and again")
            elif not (max_output_tokens := await line.ask(request)):
                await refuse(writer, 400, "invalid_request_error", "nothing is set aside for this call")
            else:
                content = await asyncio.to_thread(request.body, max_output_tokens)
                await self._pass_on(head, content, line, writer)

    async def _pass_on(self, head: Head, content: bytes, line: Line, writer: asyncio.StreamWriter) -> None:
        headers = {name: value for name, value in head.headers.items() if name not in _OURS}
        headers |= {"x-api-key": line.provider.api_key, "accept-encoding": "identity"}
        url = (line.provider.base_url or _API).rstrip("/") + head.target
        begun = False
        try:
            async with self._client(line.provider).stream("POST", url, headers=headers, content=content) as reply:
                shown = {name: value for name, value in reply.headers.items() if name.lower() not in _OURS}
                if _wants_to_be_left_alone(reply.headers, line.longest_wait):
                    line.attempts_left, shown["x-should-retry"] = 0, "false"
                begin(writer, reply.status_code, shown)
                begun = True
                if reply.is_error:
                    said = await _pass_on_error(reply, line.provider.api_key, writer)
                    line.failure = (reply.status_code, _said(said))
                else:
                    await _pass_on_answer(reply, line, writer)
            await send(writer, b"")
        except (httpx2.HTTPError, ValueError) as error:
            _log.debug("the provider %s broke off: %s", line.provider.name, type(error).__name__)
            if not begun:
                line.failure = (502, "the connection failed")
                await refuse(writer, 502, "api_error", "the connection to the provider failed")

    def _client(self, provider: ProviderSettings) -> httpx2.AsyncClient:
        if provider.name not in self._clients:
            timeout = httpx2.Timeout(
                provider.silence_timeout.total_seconds(), connect=provider.connect_timeout.total_seconds()
            )
            self._clients[provider.name] = httpx2.AsyncClient(timeout=timeout)
        return self._clients[provider.name]


async def _pass_on_answer(reply: httpx2.Response, line: Line, writer: asyncio.StreamWriter) -> None:
    """The turn hears of each event before the command line does. Raises ValueError for what is no stream of events."""
    events, whole = Events(), False
    async for chunk in reply.aiter_bytes():
        for event in events.feed(chunk):
            if not whole:
                await line.tell(event)
            whole = whole or event.get("type") == "message_stop"
        if chunk:
            await send(writer, chunk)


async def _pass_on_error(reply: httpx2.Response, key: str, writer: asyncio.StreamWriter) -> bytes:
    """Returns what it says, without the key: at most so many bytes of it are read."""
    said = b""
    async for chunk in reply.aiter_bytes():
        said += chunk
        if len(said) >= _MAX_ERROR_BYTES:
            break
    if key:
        said = said.replace(key.encode(), b"***")
    said = said[:_MAX_ERROR_BYTES]
    if said:
        await send(writer, said)
    return said


def _wants_to_be_left_alone(headers: Mapping[str, str], longest_wait: timedelta) -> bool:
    seconds = headers.get("retry-after", "0")
    return seconds.isdecimal() and int(seconds) > longest_wait.total_seconds()


def _said(body: bytes) -> str:
    """What the provider says of an error."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
