"""Connections by way of an HTTP proxy, to addresses that were checked here: the proxy resolves nothing."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable, Sequence

import httpcore2
import httpx2

from stationmaster_server.resilience.addresses import Address

_MOST_BYTES = 16 * 1024
_TARGET_FAILED = frozenset({502, 503, 504})

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


class Tunnel(httpcore2.AsyncNetworkBackend):
    """Has the proxy connect (CONNECT) to an address that `resolve` vouches for, for http as for https.

    `network` leads to the proxy itself. TLS with the host is spoken through the tunnel and verifies the host's name.
    """

    def __init__(self, url: str, resolve: Resolve, network: httpcore2.AsyncNetworkBackend, tls: ssl.SSLContext) -> None:
        self._url = proxy_url(url)
        self._resolve = resolve
        self._network = network
        self._tls = tls

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: object = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, check, and have the proxy connect, all within `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host, port)
                # A proxy that knows no IPv6 is more likely than a host without IPv4.
                address = min(addresses, key=lambda address: address.version)
                return await self._through(await self._to_proxy(timeout), address, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"no connection to {host} by way of the proxy in time") from error
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} could not be resolved") from error

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: object = None
    ) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise httpcore2.ConnectError("no proxy leads to a socket of this host")

    async def sleep(self, seconds: float) -> None:
        """Wait, between attempts to connect."""
        await self._network.sleep(seconds)

    async def _to_proxy(self, timeout: float | None) -> httpcore2.AsyncNetworkStream:
        host = self._url.raw_host.decode("ascii")
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        try:
            stream = await self._network.connect_tcp(host, port, timeout)
            if self._url.scheme != "https":
                return stream
            return await stream.start_tls(self._tls, host, timeout)
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            raise httpcore2.ProxyError("it cannot be connected to") from error

    async def _through(
        self, stream: httpcore2.AsyncNetworkStream, address: Address, port: int
    ) -> httpcore2.AsyncNetworkStream:
        where = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
        if self._url.userinfo:
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(self._login()).decode('ascii')}")
        try:
            await stream.write("\r\n".join([*lines, "", ""]).encode("ascii"))
            _accept(await _head(stream))
        except BaseException:
            await stream.aclose()
            raise
        return stream

    def _login(self) -> bytes:
        return f"{self._url.username}:{self._url.password}".encode()


def proxy_url(url: str) -> httpx2.URL:
    """Read `http://user:password@host:port` or `https://…`; ValueError, without the URL in it, for anything else."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError):
        raise ValueError("a proxy is http://host:port or https://host:port, perhaps with user:password@") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.path not in ("", "/") or parsed.query:
        raise ValueError("a proxy is http://host:port or https://host:port, perhaps with user:password@")
    return parsed


async def _head(stream: httpcore2.AsyncNetworkStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        try:
            part = await stream.read(_MOST_BYTES)
        except httpcore2.ReadError as error:
            raise httpcore2.ProxyError("it hung up") from error
        head += part
        if not part or len(head) > _MOST_BYTES:
            raise httpcore2.ProxyError("it does not answer as a proxy does")
    return head


def _accept(head: bytes) -> None:
    lines, _, rest = head.partition(b"\r\n\r\n")
    version, _, words = lines.split(b"\r\n", 1)[0].partition(b" ")
    status = words[:3]
    if not version.startswith(b"HTTP/1.") or not status.isdigit() or rest:
        raise httpcore2.ProxyError("it does not answer as a proxy does")
    if int(status) in _TARGET_FAILED:
        raise httpcore2.ConnectError(f"the proxy cannot connect there (it answered {int(status)})")
    if not 200 <= int(status) < 300:
        raise httpcore2.ProxyError(f"it answered {int(status)}")
