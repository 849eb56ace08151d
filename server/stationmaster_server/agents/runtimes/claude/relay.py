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

MAX_BODY_BYTES = 64 * 1024 * 1024
_MAX_HEAD_BYTES = 64 * 1024
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


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


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
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_MAX_HEAD_BYTES)
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
            request = await _read(reader)
            if request is not None:
                await self._answer(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            _log.debug("a call of a command line ended before its answer", exc_info=True)
        except asyncio.CancelledError:
            if self._lines:  # not the end of the relay
                raise
        finally:
            writer.close()

    async def _answer(self, request: _Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = self._lines.get(request.headers.get("x-api-key", ""))
        if line is None or not line.is_open:
            await _refuse(writer, 401, "authentication_error", "this line is not open")
        elif request.method != "POST" or request.path not in (_MESSAGES, _COUNT):
            await _refuse(writer, 404, "not_found_error", "nothing is passed on but messages")
        elif request.path == _MESSAGES and not (line.allowed and await asyncio.to_thread(_announced, request, line)):
            await _refuse(writer, 400, "invalid_request_error", "the turn has not announced this call")
        elif request.path == _MESSAGES and not line.attempts_left:
            await _refuse(writer, 503, "api_error", "it failed again and again")
        else:
            line.attempts_left -= request.path == _MESSAGES
            passing = asyncio.create_task(self._pass_on(request, line, writer), name="pass on a call")
            gone = asyncio.create_task(reader.read(1), name="wait until a command line goes")
            try:
                await asyncio.wait((passing, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (passing, gone):
                    task.cancel()
                await asyncio.gather(passing, gone, return_exceptions=True)

    async def _pass_on(self, request: _Request, line: Line, writer: asyncio.StreamWriter) -> None:
        headers = {name: value for name, value in request.headers.items() if name not in _OURS}
        headers |= {"x-api-key": line.provider.api_key, "accept-encoding": "identity"}
        url = (line.provider.base_url or _API).rstrip("/") + request.target
        begun = False
        try:
            async with self._client(line.provider).stream("POST", url, headers=headers, content=request.body) as reply:
                shown = {name: value for name, value in reply.headers.items() if name.lower() not in _OURS}
                if _wants_to_be_left_alone(reply.headers, line.longest_wait):
                    line.attempts_left, shown["x-should-retry"] = 0, "false"
                _begin(writer, reply.status_code, shown)
                begun, tail = True, b""
                async for chunk in reply.aiter_raw():
                    tail += chunk
                    if request.path == _MESSAGES and _END in tail:
                        line.allowed = False
                    tail = tail[-_MAX_ERROR_BYTES:] if reply.is_error else tail[-len(_END) :]
                    writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    await writer.drain()
                if reply.is_error and request.path == _MESSAGES:
                    line.failure = (reply.status_code, _said(tail))
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        except httpx2.HTTPError as error:
            _log.debug("the provider %s broke off: %s", line.provider.name, type(error).__name__)
            if not begun:
                line.failure = (502, "the connection failed")
                await _refuse(writer, 502, "api_error", "the connection to the provider failed")

    def _client(self, provider: ProviderSettings) -> httpx2.AsyncClient:
        if provider.name not in self._clients:
            timeout = httpx2.Timeout(
                provider.silence_timeout.total_seconds(), connect=provider.connect_timeout.total_seconds()
            )
            self._clients[provider.name] = httpx2.AsyncClient(timeout=timeout)
        return self._clients[provider.name]


def _announced(request: _Request, line: Line) -> bool:
    """Whether this is the call that the turn has announced: of its model, streamed, and not longer."""
    match json.loads(request.body):
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


def _begin(writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers.items())]
    lines += ["transfer-encoding: chunked", "connection: close"]
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")


async def _refuse(writer: asyncio.StreamWriter, status: int, kind: str, message: str) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    _begin(writer, status, {"content-type": "application/json", "x-should-retry": "false"})
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> _Request | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MAX_BODY_BYTES:
        return None
    return _Request(method, target, headers, await reader.readexactly(length))
