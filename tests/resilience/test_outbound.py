"""The guard of what is fetched on a user's word: what it refuses and what it lets through."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import httpcore2
import httpx2
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stationmaster_server.errors import FailedPrecondition, Reason
from stationmaster_server.resilience.outbound import Outbound

from tests.resilience.site import answer, redirect, serve
from tests.rpc.certificates import Authority

PUBLIC = "93.184.215.14"
LOOPBACK = ("127.0.0.0/8",)


class Resolver:
    """Answers in place of the system's resolver: each name with its next list of addresses, the last one for good."""

    def __init__(self, names: dict[str, list[list[str]]]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        """As the event loop's."""
        self.asked.append(host)
        answers = self.names.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]


class Wire(httpcore2.AnyIOBackend):
    """The network, which notes where it was told to connect and reaches nothing."""

    connected: list[str] = []  # noqa: RUF012

    async def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> httpcore2.AsyncNetworkStream:
        """Refuse, as a host that does not listen."""
        self.connected.append(host)
        raise httpcore2.ConnectError("nobody listens")


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where connections went, none of which is made."""
    monkeypatch.setattr(httpcore2, "AnyIOBackend", Wire)
    monkeypatch.setattr(Wire, "connected", [])
    return Wire.connected


@pytest.fixture
async def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[list[str]]]], Resolver]:
    """Puts a resolver in place of the system's."""

    def replace(names: dict[str, list[list[str]]]) -> Resolver:
        resolver = Resolver(names)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolver.getaddrinfo)
        return resolver

    return replace


Resolve = Callable[[dict[str, list[list[str]]]], Resolver]


async def get(url: str, allow: Sequence[str] = (), **options: Any) -> httpx2.Response:
    """What one request brings."""
    async with Outbound(allow).client(**options) as client:
        return await client.get(url)


# What is refused


async def test_loopback_is_refused_and_never_connected_to() -> None:
    async with serve() as site:
        with pytest.raises(FailedPrecondition) as caught:
            await get(f"http://127.0.0.1:{site.port}/secret")
    assert site.connections == 0
    assert caught.value.reason is Reason.ADDRESS_REFUSED


async def test_refusal_names_host_class_and_setting_but_no_address(resolve: Resolve) -> None:
    resolve({"intranet.test": [["10.1.2.3"]]})
    with pytest.raises(FailedPrecondition) as caught:
        await get("http://user:password@intranet.test/?token=hidden")
    message = caught.value.message
    assert message.startswith("intranet.test has an address that is not public (private).")
    assert "outbound.allow" in message
    for hidden in ("10.1.2.3", "password", "hidden"):
        assert hidden not in message


ADDRESSES = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "reserved",
    "10.0.0.1": "private",
    "100.64.0.1": "shared (carrier-grade NAT)",
    "100.127.255.255": "shared (carrier-grade NAT)",
    "100.100.100.200": "cloud metadata",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "cloud metadata",
    "169.254.0.1": "link-local",
    "169.254.169.254": "cloud metadata",
    "169.254.170.2": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.192": "cloud metadata",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "reserved",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:169.254.169.254": "cloud metadata",
    "::ffff:0:127.0.0.1": "reserved",
    "64:ff9b::7f00:1": "loopback",
    "64:ff9b::a9fe:a9fe": "cloud metadata",
    "64:ff9b:1::1": "NAT64",
    "100::1": "reserved",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",
    "2001:20::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:7f00:1::1": "6to4",
    "2002:5db8:d70e::1": "6to4",
    "3fff::1": "documentation",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "fc00::1": "private",
    "fd00:ec2::254": "cloud metadata",
    "fd20:ce::254": "cloud metadata",
    "fdff::1": "private",
    "fe80::1": "link-local",
    "fec0::1": "private",
    "ff02::1": "multicast",
}


@pytest.mark.parametrize(("address", "kind"), ADDRESSES.items())
async def test_address_that_is_not_public_is_refused(
    address: str, kind: str, wire: list[str], resolve: Resolve
) -> None:
    resolve({"name.test": [[address]]})
    with pytest.raises(FailedPrecondition, match=r"name\.test") as caught:
        await get("http://name.test/")
    assert f"({kind})" in caught.value.message
    assert wire == []


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "64:ff9b::5db8:d70e"]
)
async def test_public_address_is_connected_to(address: str, wire: list[str], resolve: Resolve) -> None:
    resolve({"name.test": [[address]]})
    with pytest.raises(httpx2.ConnectError):
        await get("http://name.test/")
    assert wire == [address]


async def test_one_address_of_several_that_is_not_public_refuses_the_host(wire: list[str], resolve: Resolve) -> None:
    resolve({"name.test": [[PUBLIC, "10.0.0.1"]]})
    with pytest.raises(FailedPrecondition):
        await get("http://name.test/")
    assert wire == []


SPELLINGS = [
    "localhost",
    "LOCALHOST",
    "user:password@127.0.0.1",
    "example.com@127.0.0.1",
    "example.com%40127.0.0.1@127.0.0.1",
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0177.1",
    "017700000001",
    "0x7f.0.0.1",
    "0x7f000001",
    "0X7F.1",
    "2130706433",
    "0",
    "0.0.0.0",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[fe80::1]",
    "[fe80::1%lo]",
]
HARMLESS = [
    "0177.0.0.1",
    "127.0.0.1.",
    "127.0.0.1\u3002",
    "\uff11\uff12\uff17.0.0.1",
    "\u2460\u2461\u2466.0.0.1",
    "%31%32%37.0.0.1",
    "localhost%00.example.invalid",
    "localhost%2eexample.invalid",
    "[::1",
    "[fe80::1%25lo]",
    "x..y",
    "b" * 300,
]


def run_with(kind: str, work: Callable[[], Any]) -> None:
    """On the event loop of the standard library, and on the one that the server runs."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "uvloop" else None) as runner:
        runner.run(work())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("host", SPELLINGS)
def test_odd_spelling_of_an_inner_address_is_refused(host: str, loop: str, wire: list[str]) -> None:
    async def try_it() -> None:
        with pytest.raises(FailedPrecondition) as caught:
            await get(f"http://{host}:8080/")
        assert caught.value.reason is Reason.ADDRESS_REFUSED
        with pytest.raises(FailedPrecondition):
            await Outbound().check(f"http://{host}:8080/")

    run_with(loop, try_it)
    assert wire == []


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("host", HARMLESS)
def test_spelling_that_no_resolver_understands_reaches_nothing(host: str, loop: str, wire: list[str]) -> None:
    async def try_it() -> None:
        with pytest.raises((FailedPrecondition, httpx2.ConnectError, httpx2.InvalidURL)):
            await get(f"http://{host}/")

    run_with(loop, try_it)
    assert wire == []


@pytest.mark.parametrize(
    "url", ["ftp://host/", "file:///etc/passwd", "ws://host/", "unix:///run/x", "//host/", "", "x"]
)
async def test_other_protocols_than_http_are_refused(url: str, wire: list[str]) -> None:
    with pytest.raises((httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)):
        await get(url)
    with pytest.raises(FailedPrecondition):
        await Outbound().check(url)
    assert wire == []


@pytest.mark.parametrize("port", [65536, 99999])
async def test_impossible_port_is_an_error_of_the_connection(port: int, wire: list[str]) -> None:
    with pytest.raises(httpx2.HTTPError):
        await get(f"http://{PUBLIC}:{port}/")
    assert wire == []


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve() as proxy, serve() as site:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await get(f"http://127.0.0.1:{site.port}/", LOOPBACK)).text == "hello"
        with pytest.raises(FailedPrecondition):
            await get(f"http://127.0.0.1:{site.port}/")
    assert proxy.connections == 0


async def test_check_lets_pass_what_does_not_resolve_now(resolve: Resolve) -> None:
    resolve({"name.test": [[PUBLIC]]})
    await Outbound().check("https://name.test/mcp")
    await Outbound().check("https://unknown.test/mcp")


# Rebinding: the answer of the resolver changes


async def test_host_is_resolved_once_and_the_connection_pinned(wire: list[str], resolve: Resolve) -> None:
    resolver = resolve({"name.test": [[PUBLIC], ["127.0.0.1"]]})
    with pytest.raises(httpx2.ConnectError):
        await get("http://name.test/")
    assert (resolver.asked, wire) == (["name.test"], [PUBLIC])


async def test_host_that_turns_inward_after_a_check_is_refused(resolve: Resolve) -> None:
    async with serve() as site:
        resolve({"name.test": [[PUBLIC], ["127.0.0.1"]]})
        outbound = Outbound()
        await outbound.check(f"http://name.test:{site.port}/")
        async with outbound.client() as client:
            with pytest.raises(FailedPrecondition):
                await client.get(f"http://name.test:{site.port}/")
    assert site.connections == 0


async def test_every_new_connection_is_checked_again(resolve: Resolve) -> None:
    async with serve({"/": answer(b"once", "Connection: close")}) as site:
        resolve({"name.test": [["127.0.0.1"], ["127.0.0.2"]]})
        async with Outbound(["127.0.0.1"]).client() as client:
            assert (await client.get(f"http://name.test:{site.port}/")).text == "once"
            with pytest.raises(FailedPrecondition):
                await client.get(f"http://name.test:{site.port}/")
    assert site.connections == 1


async def test_connection_is_kept_for_the_same_host_name_only(resolve: Resolve) -> None:
    names = ["one.test", "one.test", "two.test", "one.test"]
    async with serve() as site:
        resolve({name: [["127.0.0.1"]] for name in names})
        async with Outbound(LOOPBACK).client() as client:
            for name in names:
                await client.get(f"http://{name}:{site.port}/")
    assert [headers["host"].split(":")[0] for _, headers, _ in site.requests] == names
    assert site.connections == 2


async def test_next_address_is_tried_when_one_does_not_answer(resolve: Resolve) -> None:
    async with serve() as site:
        resolve({"name.test": [["127.0.0.2", "127.0.0.3", "127.0.0.1"]]})
        assert (await get(f"http://name.test:{site.port}/", LOOPBACK)).text == "hello"


async def test_resolver_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    with pytest.raises(httpx2.ConnectTimeout):
        await get("http://name.test/", timeout=httpx2.Timeout(30.0, connect=0.05))


# What is allowed


@pytest.mark.parametrize(
    "entry",
    [
        "tools.test",
        "TOOLS.test.",
        "*.test",
        "127.0.0.1",
        "127.0.0.0/8",
        "tools.test:{port}",
        "*.test:{port}",
        "127.0.0.1:{port}",
        "[127.0.0.0/8]:{port}",
        "127.0.0.0/8:{port}",
    ],
)
async def test_allowed_host_is_reached(entry: str, resolve: Resolve) -> None:
    async with serve() as site:
        resolve({"tools.test": [["127.0.0.1"]]})
        url = f"http://tools.test:{site.port}/"
        assert (await get(url, [entry.format(port=site.port)])).text == "hello"
        await Outbound([entry.format(port=site.port)]).check(url)


@pytest.mark.parametrize(
    "entry",
    [
        "test",
        "*.tools.test",
        "s.test",
        "*.s.test",
        "ools.test",
        "tools.test.example",
        "tools.test:1",
        "*.test:1",
        "127.0.0.2",
        "127.0.0.1:1",
        "[::1]",
        "10.0.0.0/8",
        "0.0.0.0",
    ],
)
async def test_other_entry_does_not_allow(entry: str, wire: list[str], resolve: Resolve) -> None:
    resolve({"tools.test": [["127.0.0.1"]]})
    with pytest.raises(FailedPrecondition):
        await get("http://tools.test:8080/", [entry])
    assert wire == []


async def test_allowed_address_counts_in_every_spelling(wire: list[str]) -> None:
    for host in ("127.0.0.1", "127.1", "2130706433", "[::ffff:127.0.0.1]"):
        with pytest.raises(httpx2.ConnectError):
            await get(f"http://{host}/", ["127.0.0.1"])
    assert wire == ["127.0.0.1"] * 4


@pytest.mark.parametrize("entry", ["[fd12::/16]:80", "fd12::/16", "[fd12::5]", "fd12::5", "[fd12::5]:80"])
async def test_ipv6_is_allowed_with_and_without_port(entry: str, wire: list[str]) -> None:
    with pytest.raises(httpx2.ConnectError):
        await get("http://[fd12::5]/", [entry])
    with pytest.raises(FailedPrecondition):
        await get("http://[fd13::5]/", [entry])
    assert wire == ["fd12::5"]


@pytest.mark.parametrize(
    "entry", ["", "*", "*.", "http://host", "host/path", "10.0.0.0/33", "10.0.0.1/8", "10.0.0", "host:0", "host:70000"]
)
def test_entry_that_means_nothing_is_refused_at_start(entry: str) -> None:
    with pytest.raises(ValueError, match=r"write a host name|between 1 and 65535"):
        Outbound([entry])


# Redirects


async def test_redirects_are_not_followed_unless_asked() -> None:
    async with serve({"/": redirect("/next")}) as site:
        response = await get(f"http://127.0.0.1:{site.port}/", LOOPBACK)
    assert response.status_code == 302
    assert len(site.requests) == 1


async def test_redirect_to_an_inner_address_is_refused_at_its_hop(resolve: Resolve) -> None:
    async with serve() as secret, serve() as site:
        resolve({"open.test": [["127.0.0.1"]], "127.0.0.1": [["127.0.0.1"]]})
        site.answers = {"/": redirect("/second"), "/second": redirect(f"http://127.0.0.1:{secret.port}/")}
        with pytest.raises(FailedPrecondition) as caught:
            await get(f"http://open.test:{site.port}/", ["open.test"], follow_redirects=True)
    assert caught.value.reason is Reason.ADDRESS_REFUSED
    assert [path for path, _, _ in site.requests] == ["/", "/second"]
    assert secret.connections == 0


async def test_redirects_end() -> None:
    async with serve({"/": redirect("/")}) as site:
        with pytest.raises(httpx2.TooManyRedirects):
            await get(f"http://127.0.0.1:{site.port}/", LOOPBACK, follow_redirects=True)


async def test_redirect_within_an_origin_keeps_headers_and_body() -> None:
    client = Outbound(LOOPBACK).client(headers={"X-Api-Key": "k"}, follow_redirects=True)
    async with serve({"/": redirect("/next", 307)}) as site, client:
        response = await client.post(f"http://127.0.0.1:{site.port}/", content=b"body", auth=("name", "password"))
    path, headers, body = site.requests[1]
    assert (path, headers["x-api-key"], body) == ("/next", "k", b"body")
    assert headers["authorization"].startswith("Basic ")
    assert [hop.status_code for hop in response.history] == [307]


async def test_redirect_to_another_origin_carries_no_credentials() -> None:
    secrets = {"X-Api-Key": "k", "Authorization": "Bearer t", "Cookie": "a=b", "Mcp-Session-Id": "s", "Accept": "x/y"}
    client = Outbound(LOOPBACK).client(headers=secrets, follow_redirects=True)
    async with serve() as other, serve() as site, client:
        site.answers = {"/": redirect(f"http://127.0.0.1:{other.port}/")}
        async with client.stream("GET", f"http://127.0.0.1:{site.port}/") as response:
            assert await response.aread() == b"hello"
    headers = other.requests[0][1]
    assert set(headers) <= {"host", "accept", "accept-encoding", "user-agent"}
    assert headers["accept"] == "x/y"
    assert headers["host"] == f"127.0.0.1:{other.port}"


async def test_redirect_of_a_body_to_another_origin_is_refused() -> None:
    async with serve() as other, serve() as site:
        site.answers = {"/": redirect(f"http://127.0.0.1:{other.port}/", 307)}
        async with Outbound(LOOPBACK).client(follow_redirects=True) as client:
            with pytest.raises(FailedPrecondition, match="with its body to another origin"):
                await client.post(f"http://127.0.0.1:{site.port}/", content=b"body")
    assert other.connections == 0


async def test_redirect_from_https_to_http_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolve: Resolve
) -> None:
    resolve({"localhost": [["127.0.0.1"]]})
    async with serve() as plain, serve(tls=_tls(tmp_path, monkeypatch)) as site:
        site.answers = {"/": redirect(f"http://localhost:{plain.port}/")}
        with pytest.raises(FailedPrecondition, match="from https to http"):
            await get(f"https://localhost:{site.port}/", LOOPBACK, follow_redirects=True)
    assert plain.connections == 0


# TLS


def _tls(folder: Path, monkeypatch: pytest.MonkeyPatch, names: list[str | None] | None = None) -> ssl.SSLContext:
    authority = Authority(folder)
    certificate, key = authority.issue("server")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if names is not None:
        context.sni_callback = lambda _socket, name, _context: names.append(name)
    return context


async def test_tls_asks_for_and_verifies_the_host_name_on_a_pinned_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolve: Resolve
) -> None:
    names: list[str | None] = []
    resolve({"localhost": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    async with serve(tls=_tls(tmp_path, monkeypatch, names)) as site:
        assert (await get(f"https://localhost:{site.port}/", LOOPBACK)).text == "hello"
        with pytest.raises(httpx2.ConnectError, match=r"(?i)hostname mismatch"):
            await get(f"https://other.test:{site.port}/", LOOPBACK)
    assert names == ["localhost", "other.test"]


async def test_caller_cannot_have_another_name_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolve: Resolve
) -> None:
    resolve({"other.test": [["127.0.0.1"]]})
    async with serve(tls=_tls(tmp_path, monkeypatch)) as site, Outbound(LOOPBACK).client() as client:
        with pytest.raises(httpx2.ConnectError, match=r"(?i)hostname mismatch"):
            await client.get(f"https://other.test:{site.port}/", extensions={"sni_hostname": "localhost"})


# Any address at all

V4 = st.ip_addresses(v=4)
WRAPPED = V4.flatmap(
    lambda inner: st.sampled_from(
        [
            ip_address("::ffff:0:0"),
            ip_address("::"),
            ip_address("64:ff9b::"),
            ip_address("2001:0:1:2:3:4::"),
            ip_address("::ffff:0:0:0"),
        ]
    ).map(lambda prefix: IPv6Address(int(prefix) | int(inner)))
)
SIX_TO_FOUR = V4.map(lambda inner: IPv6Address((0x2002 << 112) | (int(inner) << 80)))
ANY = st.one_of(V4, st.ip_addresses(v=6), WRAPPED, SIX_TO_FOUR, st.sampled_from([ip_address(a) for a in ADDRESSES]))
NETWORKS = st.sampled_from(["10.0.0.0/8", "127.0.0.1", "fd00::/8", "::1", "169.254.0.0/16", "192.168.0.0/16:80"])


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, IPv6Address) and address in ip_network("64:ff9b::/96"):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(addresses=st.lists(ANY, min_size=1, max_size=4), allow=st.lists(NETWORKS, max_size=2))
def test_no_address_that_is_not_global_is_ever_connected_to_unless_allowed(
    addresses: list[IPv4Address | IPv6Address], allow: list[str], wire: list[str]
) -> None:
    wire.clear()
    resolver = Resolver({"name.test": [[str(address) for address in addresses], ["127.0.0.9"]]})

    async def try_it() -> None:
        asyncio.get_running_loop().getaddrinfo = resolver.getaddrinfo  # type: ignore[assignment,method-assign]
        with pytest.raises((FailedPrecondition, httpx2.ConnectError)):
            await get("http://name.test/", allow)

    asyncio.run(try_it())
    allowed = [ip_network(entry.removesuffix(":80")) for entry in allow]
    for connected in map(ip_address, wire):
        inner = _inner(connected)
        is_public = connected.is_global and inner.is_global and not inner.is_multicast and not inner.is_reserved
        assert is_public or any(connected in network for network in allowed), connected
