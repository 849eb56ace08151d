"""HTTP to where a user said: public addresses only, unless the operator allowed the host (`outbound.allow`)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from functools import cached_property

import httpcore2
import httpx2

from stationmaster_server.config.allowed import parse_allowed
from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason
from stationmaster_server.resilience.addresses import Address, plain, refusal
from stationmaster_server.resilience.outbound_client import Client, Transport
from stationmaster_server.resilience.outbound_proxy import Tunnel

_TIMEOUT = httpx2.Timeout(30.0, connect=10.0, pool=10.0)
_MOST_ADDRESSES = 8
_PORTS = {"http": 80, "https": 443}


class Outbound:
    """Guards what the server fetches on a user's word against being led to the inside of its own network.

    A host is resolved once for each connection; every address must be public or allowed; the connection then goes to
    one of these very addresses, while TLS verifies the host's name.
    """

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self._allowed = tuple(parse_allowed(entry) for entry in allow)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Shared by all clients: to read the authorities takes 20 ms."""
        return httpx2.create_ssl_context()

    def client(
        self,
        *,
        timeout: httpx2.Timeout | None = None,
        headers: Mapping[str, str] | None = None,
        max_response_bytes: int | None = None,
        follow_redirects: bool = False,
        proxy: str | None = None,
        trust_proxy: bool = False,
    ) -> httpx2.AsyncClient:
        """A client for http and https, to be closed by its user. The environment's proxies are not asked.

        Its calls raise FailedPrecondition(ADDRESS_REFUSED) besides what httpx2 raises, and ResponseTooLarge when a body
        is larger than `max_response_bytes`, as sent or decoded. Timeouts count for each connect, read and write; who
        needs the whole call bounded bounds it.

        `proxy`: an HTTP proxy that connections go through, to the addresses that were checked here (ADR 105); its own
        address is checked as well, unless it is trusted. ProxyError when it cannot be used, ValueError for none.
        """
        return Client(
            transport=Transport(self._network(proxy, trust_proxy), self._tls, max_response_bytes),
            timeout=timeout or _TIMEOUT,
            headers=headers,
            follow_redirects=follow_redirects,
            trust_env=False,
        )

    def _network(self, proxy: str | None, trusted: bool) -> httpcore2.AsyncNetworkBackend:
        if proxy is None:
            return _Backend(self)
        return Tunnel(proxy, self.resolve, httpcore2.AnyIOBackend() if trusted else _Backend(self), self._tls)

    async def check(self, url: str) -> None:
        """Raise FailedPrecondition(ADDRESS_REFUSED) for a URL that `client` would refuse.

        A name that does not resolve now passes: it is checked again when it is connected to.
        """
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL:
            raise refused("the URL", "cannot be read", "Write http://host/path or https://host/path.") from None
        if parsed.scheme not in _PORTS or not parsed.host:
            raise refused("the URL", "is neither http nor https", "Write http://host/path or https://host/path.")
        try:
            async with asyncio.timeout(_TIMEOUT.connect):
                await self.resolve(parsed.raw_host.decode("ascii"), parsed.port or _PORTS[parsed.scheme])
        except (OSError, TimeoutError):
            return

    async def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, all of which may be connected to at this port.

        Raises FailedPrecondition(ADDRESS_REFUSED) if one of them may not, and OSError for a host that has none.
        """
        if not 0 < port < 65536:
            raise OSError(f"{port} is no port")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError:
            raise OSError(f"{host!r} is no host name") from None
        addresses = list(dict.fromkeys(_address(entry[4]) for entry in found))
        if not addresses:
            raise OSError(f"{host!r} has no address")
        name = host.lower().removesuffix(".")
        if not any(entry.covers_name(name, port) for entry in self._allowed):
            for address in addresses:
                kind = refusal(address)
                if kind is not None and not any(entry.covers_address(address, port) for entry in self._allowed):
                    raise refused(
                        host,
                        f"has an address that is not public ({kind})",
                        "If the server may fetch from there, its operator adds the host to the setting outbound.allow.",
                    )
        return addresses[:_MOST_ADDRESSES]


class _Backend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: object = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve, check and connect to the first address that answers, all within `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._outbound.resolve(host, port)
                return await self._first(addresses, port, timeout)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"no connection to {host} within {timeout:g} s") from error
        except OSError as error:
            raise httpcore2.ConnectError(f"{host} could not be resolved") from error

    async def _first(
        self, addresses: Sequence[Address], port: int, timeout: float | None
    ) -> httpcore2.AsyncNetworkStream:
        share = None if timeout is None else timeout / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(str(address), port, share)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._network.connect_tcp(str(addresses[-1]), port, share)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: object = None
    ) -> httpcore2.AsyncNetworkStream:
        """Never: a user's word leads to hosts only."""
        raise refused("a socket of this host", "is not public", "Write http://host/path or https://host/path.")

    async def sleep(self, seconds: float) -> None:
        """Wait, between attempts to connect."""
        await self._network.sleep(seconds)


def refused(host: str, why: str, advice: str) -> FailedPrecondition:
    """The error for an address that is not reached."""
    return FailedPrecondition(
        Reason.ADDRESS_REFUSED, f"{host} {why}. {advice}", PreconditionViolation("ADDRESS", host, advice)
    )


def _address(where: tuple[object, ...]) -> Address:
    text, scope = str(where[0]), where[3] if len(where) == 4 else 0
    return plain(f"{text}%{scope}" if scope and "%" not in text else text)
