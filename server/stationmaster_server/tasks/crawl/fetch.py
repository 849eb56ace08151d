"""One request: within its limits of time and size, through the guard, by way of a proxy or without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx2

from stationmaster_server.errors import FailedPrecondition
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.outbound_client import ResponseTooLarge
from stationmaster_server.resilience.webhooks import retry_after
from stationmaster_server.tasks.crawl.cookies import Jar
from stationmaster_server.tasks.crawl.model import Why
from stationmaster_server.tasks.crawl.proxies import Proxies
from stationmaster_server.tasks.crawl.settings import Proxy

_SILENCE = 10.0  # seconds without a byte
_GRACE = 5.0  # seconds until a body must have come at the least speed
_LEAST_SPEED = 100.0  # bytes a second
_MOST_BYTES = 10 * 1024 * 1024  # of what is no page
_ACCEPT = "text/html,application/xhtml+xml,text/markdown,text/plain;q=0.9,application/xml;q=0.8,*/*;q=0.1"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body was read if it was wanted."""

    status: int
    headers: httpx2.Headers
    body: bytes = b""

    @property
    def content_type(self) -> str:
        """The Content-Type header, or nothing."""
        return str(self.headers.get("content-type", ""))

    @property
    def retry_after(self) -> float | None:
        """The seconds to wait that the response asks for."""
        return retry_after(self.headers.get("retry-after", ""), self.headers.get("date", ""))


class FetchFailed(Exception):
    """There is no usable answer. `retryable`: there may be one next time; `of_host`: the host did not do its part."""

    def __init__(self, why: Why, message: str, *, retryable: bool = False, of_host: bool = False) -> None:
        super().__init__(message)
        self.why = why
        self.retryable = retryable
        self.of_host = of_host


class Fetcher:
    """Sends the requests of one crawl, with its cookies, its proxies and its user agents, each by turns."""

    def __init__(
        self,
        outbound: Outbound,
        jar: Jar,
        proxies: Proxies,
        user_agents: tuple[str, ...],
        *,
        timeout: float,
        max_bytes: int,
    ) -> None:
        self._outbound = outbound
        self._jar = jar
        self._proxies = proxies
        self._user_agents = user_agents
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._clients: dict[Proxy | None, httpx2.AsyncClient] = {}
        self._requests = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))

    async def fetch(self, url: str, wants: Callable[[Answer], bool], *, cut: int | None = None) -> Answer:
        """Ask for a URL; read the body if `wants` says so of the status and the headers. Raises FetchFailed.

        With `cut`, at most 10 MiB, a larger body is cut there; otherwise one above the limit of pages is TOO_LARGE.
        """
        proxy = await self._proxies.choose()
        self._requests += 1
        headers = {"accept": _ACCEPT, "user-agent": self._user_agents[self._requests % len(self._user_agents)]}
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._ask(self._client(proxy), url, headers, wants, cut)
        except httpx2.ProxyError as error:
            self._proxies.failed(proxy)
            raise FetchFailed(Why.PROXY, f"a proxy could not be used: {error}", retryable=True) from error
        except (FailedPrecondition, TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise _failure(error, self._timeout, self._max_bytes) from error
        self._proxies.worked(proxy)
        return answer

    async def _ask(
        self,
        client: httpx2.AsyncClient,
        url: str,
        headers: dict[str, str],
        wants: Callable[[Answer], bool],
        cut: int | None,
    ) -> Answer:
        response = await client.send(client.build_request("GET", url, headers=headers), stream=True)
        try:
            answer = Answer(response.status_code, response.headers)
            if not wants(answer):
                return answer
            return Answer(response.status_code, response.headers, await self._body(response, cut))
        finally:
            await response.aclose()

    def _client(self, proxy: Proxy | None) -> httpx2.AsyncClient:
        client = self._clients.get(proxy)
        if client is None:
            timeout = httpx2.Timeout(min(_SILENCE, self._timeout))
            client = self._outbound.client(
                timeout=timeout,
                max_response_bytes=max(self._max_bytes, _MOST_BYTES),
                proxy=proxy.url if proxy else None,
                trust_proxy=proxy is not None and proxy.trusted,
            )
            client.cookies = self._jar
            self._clients[proxy] = client
        return client

    async def _body(self, response: httpx2.Response, cut: int | None) -> bytes:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > (self._max_bytes if cut is None else cut):
                if cut is None:
                    raise ResponseTooLarge("the page is too large")
                return bytes(body[:cut])
            passed = loop.time() - begun
            if passed > _GRACE and len(body) < passed * _LEAST_SPEED:
                raise TimeoutError
        return bytes(body)


def _failure(error: Exception, timeout: float, max_bytes: int) -> FetchFailed:
    match error:
        case FailedPrecondition():
            return FetchFailed(Why.ADDRESS_REFUSED, error.message)
        case ResponseTooLarge():
            return FetchFailed(Why.TOO_LARGE, f"the page has more than {max_bytes} bytes")
        case TimeoutError() | httpx2.TimeoutException():
            message = f"the page was not there within {timeout:g} s, or came too slowly"
            return FetchFailed(Why.TIMEOUT, message, retryable=True, of_host=True)
        case httpx2.DecodingError():
            return FetchFailed(Why.BROKEN_BODY, f"the body cannot be decoded: {error}")
        case ValueError() | httpx2.InvalidURL():
            return FetchFailed(Why.BROKEN_BODY, f"the response cannot be read: {type(error).__name__}")
        case _:
            message = f"the connection failed: {str(error) or type(error).__name__}"
            return FetchFailed(Why.NETWORK, message, retryable=True, of_host=True)
