"""Proxies by turns, with rests for those that fail, and no way around the guard."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.outbound_proxy import proxy_url
from stationmaster_server.tasks.crawl.model import Why
from stationmaster_server.tasks.crawl.proxies import Proxies
from stationmaster_server.tasks.crawl.settings import Proxy, Stay

from tests.resilience.site import serve
from tests.rpc.certificates import Authority
from tests.tasks.crawl.conftest import Instantly, MakeCrawl
from tests.tasks.crawl.proxy import LocalProxy, proxying
from tests.tasks.crawl.site import Site, page, redirect


@pytest_asyncio.fixture
async def proxy(site: Site) -> AsyncIterator[LocalProxy]:
    """A proxy that leads to the site."""
    async with proxying(LocalProxy(("127.0.0.1", site.port))) as running:
        yield running


async def test_pages_come_by_way_of_the_proxy_which_is_told_an_address(
    site: Site, proxy: LocalProxy, crawl: MakeCrawl
) -> None:
    site.pages = {"/": page("home")}
    crawled = crawl(f"http://localhost:{site.port}/", proxies=(Proxy(proxy.url, trusted=True),))
    await crawled.run()
    assert await crawled.fetched() == {"/"}
    assert set(proxy.targets) == {f"127.0.0.1:{site.port}"}
    assert site.log[-1].headers["host"] == f"localhost:{site.port}"


async def test_a_login_is_shown_to_the_proxy_and_to_nobody_else(
    site: Site, proxy: LocalProxy, crawl: MakeCrawl
) -> None:
    site.pages = {"/": page("home")}
    url = proxy.url.replace("//", "//user:pass%20word@")
    crawled = crawl(proxies=(Proxy(url, trusted=True),))
    await crawled.run()
    assert f"Basic {base64.b64encode(b'user:pass word').decode()}" in proxy.heads[0]
    assert all("proxy-authorization" not in asked.headers for asked in site.log)
    assert "pass" not in repr(crawled.settings)


async def test_the_guard_holds_by_way_of_a_proxy(site: Site, proxy: LocalProxy, crawl: MakeCrawl) -> None:
    site.pages = {"/": page("home")}
    crawled = crawl("http://169.254.169.254/", "http://10.0.0.1/", "/", proxies=(Proxy(proxy.url, trusted=True),))
    summary = await crawled.run()
    assert summary.reasons == {"ADDRESS_REFUSED": 2}
    assert set(proxy.targets) == {f"127.0.0.1:{site.port}"}


async def test_a_redirect_by_way_of_a_proxy_meets_the_guard(site: Site, proxy: LocalProxy, crawl: MakeCrawl) -> None:
    site.pages = {"/": redirect("http://192.168.0.1/")}
    crawled = crawl(proxies=(Proxy(proxy.url, trusted=True),), stay=Stay.ANYWHERE)
    await crawled.run()
    assert Why.ADDRESS_REFUSED in (await crawled.reasons()).values()
    assert set(proxy.targets) == {f"127.0.0.1:{site.port}"}


async def test_a_proxy_that_a_user_named_must_be_public_itself(site: Site, crawl: MakeCrawl) -> None:
    async with proxying(LocalProxy(("127.0.0.1", site.port))) as proxy:
        crawled = crawl(proxies=(Proxy(proxy.url),), crawl={"outbound": Outbound((f"127.0.0.1:{site.port}",))})
        await crawled.run()
        assert set((await crawled.reasons()).values()) == {Why.ADDRESS_REFUSED}
        assert not proxy.heads


@pytest.mark.parametrize(
    "answers",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\n\r\n<html>a web server",
        b"SSH-2.0-server\r\n\r\n",
        b"nothing of the kind",
        b"x" * 20_000,
    ],
)
async def test_a_proxy_that_fails_rests_and_the_page_goes_by_another(
    site: Site, proxy: LocalProxy, crawl: MakeCrawl, answers: bytes
) -> None:
    site.pages = {"/": page("home", ["/a", "/b"]), "/a": page("a"), "/b": page("b")}
    async with proxying(LocalProxy(answers=answers)) as broken:
        crawled = crawl(proxies=(Proxy(broken.url, trusted=True), Proxy(proxy.url, trusted=True)))
        await crawled.run()
        assert await crawled.fetched() == {"/", "/a", "/b"}
        assert len(broken.heads) == 1


async def test_a_proxy_that_nobody_answers_at_fails_the_page_after_its_attempts(site: Site, crawl: MakeCrawl) -> None:
    async with proxying(LocalProxy()) as gone:
        url = gone.url
    crawled = crawl(proxies=(Proxy(url, trusted=True),), attempts=2)
    await crawled.run()
    found = (await crawled.pages())["/"]
    assert found.reason is Why.ROBOTS_UNREACHABLE
    assert "a proxy could not be used: it cannot be connected to" in found.error
    assert url not in found.error


async def test_a_proxy_that_cannot_reach_the_site_is_not_to_blame(
    site: Site, proxy: LocalProxy, crawl: MakeCrawl, clock: Instantly
) -> None:
    proxy.answers = b"HTTP/1.1 502 Bad Gateway\r\n\r\n"
    crawled = crawl(proxies=(Proxy(proxy.url, trusted=True),), attempts=1)
    begun = clock.now()
    await crawled.run()
    assert "the proxy cannot connect there (it answered 502)" in (await crawled.pages())["/"].error
    assert clock.now() == begun


async def test_proxies_take_turns_rest_longer_each_time_and_come_back() -> None:
    clock = Instantly()
    a, b = Proxy("http://a"), Proxy("http://b")
    proxies = Proxies((a, b), clock)
    assert [await proxies.choose() for _ in range(4)] == [a, b, a, b]
    proxies.failed(a)
    assert [await proxies.choose() for _ in range(2)] == [b, b]
    clock.time += 30
    assert a in [await proxies.choose() for _ in range(2)]
    proxies.failed(a)
    clock.time += 59
    assert [await proxies.choose() for _ in range(2)] == [b, b]
    clock.time += 1
    proxies.worked(a)
    proxies.failed(a)
    clock.time += 30
    assert a in [await proxies.choose() for _ in range(2)]


async def test_when_all_proxies_rest_the_first_to_come_back_is_waited_for() -> None:
    clock = Instantly()
    a, b = Proxy("http://a"), Proxy("http://b")
    proxies = Proxies((a, b), clock)
    begun = clock.now()
    proxies.failed(a)
    proxies.failed(a)
    proxies.failed(b)
    assert await proxies.choose() == b
    assert clock.now() == begun + 30


async def test_without_proxies_there_is_none() -> None:
    assert await Proxies((), Instantly()).choose() is None


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_tls_through_a_proxy_verifies_the_host_and_not_the_address(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(*authority.issue("localhost"))
    async with (
        serve(tls=server_tls) as far,
        proxying(LocalProxy(("127.0.0.1", far.port)), server_tls if scheme == "https" else None) as near,
    ):
        monkeypatch.setattr(httpx2, "create_ssl_context", lambda: ssl.create_default_context(cafile=authority.file))
        outbound = Outbound(("localhost", "127.0.0.1"))
        async with outbound.client(proxy=f"{scheme}://localhost:{near.port}", trust_proxy=True) as client:
            assert (await client.get(f"https://localhost:{far.port}/")).text == "hello"
        assert near.targets == [f"127.0.0.1:{far.port}"]


@pytest.mark.parametrize(
    "url", ["socks5://u:secret@h:1", "http://", "h:80", "http://u:secret@h/path", "http://h?secret", ""]
)
def test_what_is_no_proxy_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(ValueError, match="a proxy is http://host:port") as raised:
        proxy_url(url)
    assert "secret" not in str(raised.value)
