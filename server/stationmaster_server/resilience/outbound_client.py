"""An HTTP client with bounded bodies and cautious redirects, over a network that it is given."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, MutableMapping
from contextlib import aclosing, contextmanager
from typing import Any

import httpcore2
import httpx2

from stationmaster_server.errors import FailedPrecondition, Reason

_MOST_REDIRECTS = 5
# What a request may keep when a redirect leads it to another origin; credentials hide under many other names.
_KEPT = frozenset({"accept", "accept-encoding", "accept-language", "content-type", "host", "range", "user-agent"})


class ResponseTooLarge(httpx2.TransportError):
    """The other side sent more than was asked for at most."""


class Client(httpx2.AsyncClient):
    """Follows a redirect, if it is told to, without handing headers or a body to another origin."""

    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        auth: Any = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        """Send a request; raise FailedPrecondition(ADDRESS_REFUSED) for a redirect that gives secrets away."""
        follow = follow_redirects if isinstance(follow_redirects, bool) else self.follow_redirects
        response = await super().send(request, stream=stream, auth=auth, follow_redirects=False)
        history: list[httpx2.Response] = []
        while follow and response.next_request is not None:
            await response.aclose()
            if len(history) >= _MOST_REDIRECTS:
                raise httpx2.TooManyRedirects(f"more than {_MOST_REDIRECTS} redirects", request=response.request)
            history.append(response)
            onward = _onward(response.request, response.next_request)
            response = await super().send(onward, stream=stream, auth=None, follow_redirects=False)
            response.history = list(history)
        return response


class Transport(httpx2.AsyncBaseTransport):
    """Connections by way of `network`, and responses of at most `max_response_bytes`."""

    def __init__(
        self, network: httpcore2.AsyncNetworkBackend, tls: ssl.SSLContext, max_response_bytes: int | None
    ) -> None:
        self._limit = max_response_bytes
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=network,
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request to where its URL says."""
        if request.url.scheme not in ("http", "https"):
            raise httpx2.UnsupportedProtocol(f"{request.url.scheme} is neither http nor https")
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        with _translated():
            response = await self._pool.handle_async_request(
                httpcore2.Request(
                    request.method,
                    url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions={name: value for name, value in request.extensions.items() if name != "sni_hostname"},
                )
            )
        return _Response(
            response.status,
            headers=response.headers,
            stream=_Body(response.stream),
            extensions=response.extensions,
            limit=self._limit,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, source: Any) -> None:
        self._source = source

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated():
            async for part in self._source:
                yield part

    async def aclose(self) -> None:
        await self._source.aclose()


class _Response(httpx2.Response):
    """Counts what it was sent and what that decodes to; all other ways to read a body end at these two."""

    def __init__(
        self,
        status_code: int,
        *,
        headers: list[tuple[bytes, bytes]],
        stream: httpx2.AsyncByteStream,
        extensions: MutableMapping[str, Any],
        limit: int | None,
    ) -> None:
        super().__init__(status_code, headers=headers, stream=stream, extensions=dict(extensions))
        self._limit = limit

    async def aiter_raw(self, chunk_size: int | None = None) -> AsyncGenerator[bytes, None]:
        """The body as it was sent."""
        meter = _Meter(self._limit, chunk_size)
        async with aclosing(super().aiter_raw()) as chunks:
            async for chunk in chunks:
                for part in meter.take(chunk):
                    yield part
        if meter.rest:
            yield meter.rest

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncGenerator[bytes, None]:
        """The body, decoded."""
        if len(self.headers.get_list("content-encoding", split_commas=True)) > 1:
            # The decoder of an inner encoding keeps what follows its end, however much an outer one inflates.
            raise httpx2.DecodingError("the body is encoded more than once", request=self.request)
        meter = _Meter(self._limit, chunk_size)
        async with aclosing(super().aiter_bytes()) as chunks:
            async for chunk in chunks:
                for part in meter.take(chunk):
                    yield part
        if meter.rest:
            yield meter.rest


class _Meter:
    """Lets pieces of a body pass up to a limit, in pieces of `chunk_size` if that is given."""

    def __init__(self, limit: int | None, chunk_size: int | None) -> None:
        self._limit = limit
        self._chunk_size = chunk_size
        self._size = 0
        self.rest = b""

    def take(self, chunk: bytes) -> Iterator[bytes]:
        self._size += len(chunk)
        if self._limit is not None and self._size > self._limit:
            raise ResponseTooLarge(f"the response is larger than {self._limit} bytes")
        if self._chunk_size is None:
            yield chunk
            return
        whole = self.rest + chunk
        end = len(whole) - len(whole) % self._chunk_size
        for start in range(0, end, self._chunk_size):
            yield whole[start : start + self._chunk_size]
        self.rest = whole[end:]


def _onward(before: httpx2.Request, after: httpx2.Request) -> httpx2.Request:
    """The request that a redirect leads to, without what its origin was not meant to have."""
    if before.url.scheme == "https" and after.url.scheme != "https":
        raise _unsafe(before, after, "from https to http")
    if (before.url.scheme, before.url.host, before.url.port) == (after.url.scheme, after.url.host, after.url.port):
        return after
    if after.headers.get("content-length", "0") != "0" or "transfer-encoding" in after.headers:
        raise _unsafe(before, after, "with its body to another origin")
    for name in set(after.headers.keys()) - _KEPT:
        del after.headers[name]
    return after


def _unsafe(before: httpx2.Request, after: httpx2.Request, how: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.ADDRESS_REFUSED,
        f"{before.url.host} redirects the request {how} ({after.url.host}). Use the address that it leads to.",
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Turn errors of the connection pool into those of httpx2, which have the same names."""
    try:
        yield
    except Exception as error:
        for kind in type(error).__mro__:
            same = getattr(httpx2, kind.__name__, None)
            if kind.__module__.startswith("httpcore2") and same is not None:
                raise same(str(error)) from error
        raise
