"""The provider as the command lines see it: a server of this process on the loopback, which passes their calls on.

It knows each by a token that is of no use elsewhere, so none ever holds the provider's key. It lets a command line ask
the model as often as the turn has announced and no more, whatever the program would do on its own account: go on with
an answer that was cut, try to rescue one that makes no sense, sum up. And it ends with this process: an orphan asks
nobody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
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

_HEAD_SECONDS = 60.0
_MAX_ERROR_BYTES = 64 * 1024
_MESSAGES, _COUNT = "/v1/messages", "/v1/messages/count_tokens"
_END = b'"message_stop"'
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


@dataclass(eq=False)
class Line:
    """A command line's way to its provider. It may ask the model once `allow` was called, until an answer was whole."""

    provider: ProviderSettings
    model: str
    url: str
    longest_wait: timedelta
    """A provider that wants to be left alone for longer is not asked again."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    allowed: bool = False
    attempts_left: int = 0
    max_output_tokens: int = 0
    failure: tuple[int, str] | None = None
    """The status and the words with which the provider refused last: the command line may try something else then."""
    is_open: bool = True

    def allow(self, attempts: int, max_output_tokens: int) -> None:
        """One answer of at most so many tokens may be asked for, so often until it is whole."""
        self.allowed, self.attempts_left, self.max_output_tokens = True, attempts, max_output_tokens
        self.failure = None

    def shut(self) -> None:
        """Nothing more is passed on."""
        self.is_open = False


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
        if head.method != "POST" or head.path not in (_MESSAGES, _COUNT):
            await refuse(writer, 404, "not_found_error", "nothing is passed on but messages")
            return
        body = await read_body(reader, head)
        if head.path == _MESSAGES:
            if not (line.allowed and await asyncio.to_thread(_announced, body, line)):
                await refuse(writer, 400, "invalid_request_error", "the turn has not announced this call")
                return
            if not line.attempts_left:
                await refuse(writer, 503, "api_error", "it failed again and again")
                return
            line.attempts_left -= 1
        passing = asyncio.create_task(self._pass_on(head, body, line, writer), name="pass on a call")
        gone = asyncio.create_task(reader.read(1), name="wait until a command line goes")
        try:
            await asyncio.wait((passing, gone), return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                passing.result()
        finally:
            for task in (passing, gone):
                task.cancel()
            await asyncio.gather(passing, gone, return_exceptions=True)

    async def _pass_on(self, head: Head, body: bytes, line: Line, writer: asyncio.StreamWriter) -> None:
        headers = {name: value for name, value in head.headers.items() if name not in _OURS}
        headers |= {"x-api-key": line.provider.api_key, "accept-encoding": "identity"}
        url = (line.provider.base_url or _API).rstrip("/") + head.target
        begun = False
        try:
            async with self._client(line.provider).stream("POST", url, headers=headers, content=body) as reply:
                shown = {name: value for name, value in reply.headers.items() if name.lower() not in _OURS}
                if _wants_to_be_left_alone(reply.headers, line.longest_wait):
                    line.attempts_left, shown["x-should-retry"] = 0, "false"
                begin(writer, reply.status_code, shown)
                begun, tail = True, b""
                async for chunk in reply.aiter_raw():
                    tail += chunk
                    if head.path == _MESSAGES and _END in tail:
                        line.allowed = False
                    tail = tail[-_MAX_ERROR_BYTES:] if reply.is_error else tail[-len(_END) :]
                    if chunk:
                        await send(writer, chunk)
                if reply.is_error and head.path == _MESSAGES:
                    line.failure = (reply.status_code, _said(tail))
            await send(writer, b"")
        except httpx2.HTTPError as error:
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


def _announced(body: bytes, line: Line) -> bool:
    """Whether this is the call that the turn has announced: of its model, streamed, and not longer."""
    match json.loads(body):
        case {"model": line.model, "stream": True, "max_tokens": int(most)}:
            return most <= line.max_output_tokens
    return False


def _wants_to_be_left_alone(headers: Mapping[str, str], longest_wait: timedelta) -> bool:
    seconds = headers.get("retry-after", "0")
    return seconds.isdecimal() and int(seconds) > longest_wait.total_seconds()


def _said(body: bytes) -> str:
    """What the provider says of an error."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
