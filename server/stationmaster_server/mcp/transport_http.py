"""Streamable HTTP by the library, over a client that bounds what comes back and tells failures of requests apart."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

import httpx2
import mcp_types as types
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from stationmaster_server.errors import Reason, StationmasterError
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.faults import Ended, Fate
from stationmaster_server.mcp.model import Http
from stationmaster_server.mcp.rate import Rate

_SIGNED = uuid.uuid4().hex
"""Tells our own errors from those of servers, which cannot know it."""
_CLOSING_SECONDS = 3.0
_ONE_WAY_SECONDS = 5.0
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class HttpClients(Protocol):
    """Makes clients (`Outbound.client`, or the like)."""

    def __call__(
        self,
        *,
        timeout: httpx2.Timeout | None = None,
        headers: Mapping[str, str] | None = None,
        max_response_bytes: int | None = None,
        follow_redirects: bool = False,
    ) -> httpx2.AsyncClient: ...


class Kind(StrEnum):
    """What happened to a request that got no answer of the server's."""

    NOT_SENT = "not sent"
    LOST = "lost"
    GONE = "gone"
    """The server does not know the session any more, and did nothing."""
    STATUS = "status"
    FAULT = "fault"
    REFUSED = "refused"
    """The address may not be reached."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no answer of the server's."""

    kind: Kind
    text: str
    reason: Reason = Reason.MCP_SERVER_FAULT

    @classmethod
    def of(cls, error: MCPError) -> Failure | None:
        """The failure that an error stands for, if it is one of ours."""
        match error.data:
            case {"signed": str(signed), "kind": str(kind), "reason": str(reason)} if signed == _SIGNED:
                return cls(Kind(kind), error.message, Reason(reason))
            case _:
                return None


@asynccontextmanager
async def http(
    transport: Http, clients: HttpClients, connect_timeout: timedelta, fate: Fate, bounds: Bounds
) -> AsyncIterator[tuple[Any, Any]]:
    """The streams of a session with the server.

    Reading has no time limit here: every request has a deadline of its own, and a server that fell silent is pinged.
    """
    timeout = httpx2.Timeout(None, connect=connect_timeout.total_seconds(), write=60.0, pool=60.0)
    async with (
        clients(timeout=timeout, max_response_bytes=None, follow_redirects=False) as inner,
        httpx2.AsyncClient(
            transport=_Bounded(inner, fate, bounds),
            timeout=timeout,
            headers=dict(transport.headers),
            trust_env=False,
        ) as client,
        streamable_http_client(transport.url, http_client=client, max_sse_event_size=bounds.message_bytes) as streams,
    ):
        yield streams


class _Bounded(httpx2.AsyncBaseTransport):
    """Sends by another client. What fails is answered in the server's stead, so that it concerns its request alone."""

    def __init__(self, inner: httpx2.AsyncClient, fate: Fate, bounds: Bounds) -> None:
        self._inner = inner
        self._fate = fate
        self._bounds = bounds

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["accept-encoding"] = "identity"  # what is packed has no bound before it is unpacked
        if request.method == "DELETE":
            async with asyncio.timeout(_CLOSING_SECONDS):
                return await self._send(request)
        if request.method != "POST":
            return await self._send(request)
        try:
            # The library sends these one after the other: none of them may hold up the requests behind it.
            async with asyncio.timeout(None if _is_request(request) else _ONE_WAY_SECONDS):
                return await self._post(request)
        except TimeoutError:
            return _answer(Kind.LOST, "it does not take a notification")
        except _NOT_SENT as error:
            return _answer(Kind.NOT_SENT, f"it cannot be reached: {_said(error)}")
        except httpx2.HTTPError as error:
            return _answer(Kind.LOST, f"the connection was lost: {_said(error)}")
        except StationmasterError as error:
            return _answer(Kind.REFUSED, error.message, error.reason)

    async def _post(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._send(request)
        kind = response.headers.get("content-type", "").lower()
        if response.status_code >= 400 or kind.startswith("application/json"):
            return await self._whole(request, response)
        return response

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.send(request, stream=True, follow_redirects=False)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            return _answer(Kind.FAULT, "it answers in an encoding that was not asked for")
        body = Body(response, Rate(self._bounds), self._fate)
        return httpx2.Response(response.status_code, headers=response.headers, stream=body)

    async def _whole(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        """A body that is no stream, read to its end."""
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._bounds.message_bytes:
                    return _answer(Kind.FAULT, f"it answered with more than {self._bounds.message_bytes:,} bytes")
        finally:
            await response.aclose()
        status = response.status_code
        if status >= 400:
            return self._refusal(request, status, bytes(body))
        return httpx2.Response(status, headers=_without_length(response.headers), content=bytes(body))

    def _refusal(self, request: httpx2.Request, status: int, body: bytes) -> httpx2.Response:
        if status in (400, 404) and "mcp-session-id" in request.headers:
            return _answer(Kind.GONE, "it does not know the session any more")
        try:
            if isinstance(types.jsonrpc_message_adapter.validate_json(body, by_name=False), types.JSONRPCError):
                return httpx2.Response(status, headers={"content-type": "application/json"}, content=body)
        except ValueError:
            pass
        return _answer(Kind.LOST if status >= 500 else Kind.STATUS, f"it answered with HTTP status {status}")


class Body(httpx2.AsyncByteStream):
    """The bytes of a response, at a bounded rate."""

    def __init__(self, response: httpx2.Response, rate: Rate, fate: Fate) -> None:
        self._response = response
        self._rate = rate
        self._fate = fate

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._response.aiter_raw():
            try:
                await self._rate.take(len(chunk), max(1, _events_in(chunk)))
            except Ended as ended:
                raise self._fate.end(ended) from ended
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


def _answer(kind: Kind, text: str, reason: Reason = Reason.MCP_SERVER_FAULT) -> httpx2.Response:
    error = types.ErrorData(
        code=types.INTERNAL_ERROR, message=text, data={"signed": _SIGNED, "kind": kind.value, "reason": reason.value}
    )
    message = types.JSONRPCError(jsonrpc="2.0", id=None, error=error)
    return httpx2.Response(
        503,
        headers={"content-type": "application/json"},
        content=message.model_dump_json(by_alias=True, exclude_none=False).encode(),
    )


def _events_in(chunk: bytes) -> int:
    """How many server-sent events end in it: a blank line ends one, whichever line ends a server writes."""
    return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n\n")


def _without_length(headers: httpx2.Headers) -> httpx2.Headers:
    kept = httpx2.Headers(headers)
    for name in ("content-length", "transfer-encoding"):
        kept.pop(name, None)
    return kept


def _is_request(request: httpx2.Request) -> bool:
    message = json.loads(request.content)
    return "method" in message and "id" in message


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
