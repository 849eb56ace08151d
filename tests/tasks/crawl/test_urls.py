"""One spelling for each URL."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks.crawl.scope import Scope
from stationmaster_server.tasks.crawl.settings import CrawlSettings, Stay
from stationmaster_server.tasks.crawl.urls import MAX_URL, host_of, is_endless, normalise, origin_of

hosts = st.sampled_from(["Example.COM", "example.com.", "bücher.example", "[::1]", "[2001:DB8::0:1]", "a_b.example"])
parts = st.text(st.sampled_from("abcZ09-._~ /%:@!$&'()*+,;=é\\\"<>\u3000{}|^`"), max_size=30)


@st.composite
def urls(draw: st.DrawFn) -> str:
    """URLs as people and programs write them, good and bad."""
    port = draw(st.sampled_from(["", ":80", ":443", ":8080", ":"]))
    scheme = draw(st.sampled_from(["http", "HTTPS", "https"]))
    query = draw(st.one_of(st.just(""), parts.map(lambda text: f"?{text}")))
    fragment = draw(st.one_of(st.just(""), parts.map(lambda text: f"#{text}")))
    return f"{scheme}://{draw(hosts)}{port}/{draw(parts)}{query}{fragment}"


@given(urls())
def test_normalising_twice_is_normalising_once(url: str) -> None:
    once = normalise(url)
    assert once is None or normalise(once) == once


@given(st.text(max_size=200), urls())
def test_whatever_stands_in_a_link_gives_a_plain_url_or_none(text: str, base: str) -> None:
    url = normalise(text, base)
    if url is None:
        return
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    split = urlsplit(url)
    assert split.scheme in ("http", "https")
    assert split.hostname == host_of(url)
    assert not split.fragment
    assert split.path.startswith("/")
    assert not {".", ".."} & set(split.path.split("/"))
    assert len(url) <= MAX_URL
    assert normalise(url) == url


@given(urls(), urls())
def test_a_whole_url_is_the_same_wherever_it_is_found(url: str, base: str) -> None:
    assert normalise(url, base) == normalise(url)


@given(urls(), parts)
def test_a_fragment_makes_no_other_page(url: str, fragment: str) -> None:
    bare = url.partition("#")[0].strip()
    assert normalise(bare) == normalise(f"{bare}#{fragment}")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123")), min_size=1, max_size=5))
def test_the_order_of_a_query_is_kept(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs)
    assert normalise(f"http://h/?{query}") == f"http://h/?{query}"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("HTTP://Example.COM:80", "http://example.com/"),
        ("https://example.com.:443/a#b", "https://example.com/a"),
        ("https://example.com:80/", "https://example.com:80/"),
        ("http://bücher.example/straße?q=ä", "http://xn--bcher-kva.example/stra%C3%9Fe?q=%C3%A4"),
        ("http://h/a/./b/../c/", "http://h/a/c/"),
        ("http://h/a/%2e%2E/b", "http://h/b"),
        ("http://h/../../x", "http://h/x"),
        ("http://h/%7Euser/%2f%e4", "http://h/~user/%2F%E4"),
        ("http://h/100%", "http://h/100%25"),
        ("http://h/a b\tc\n", "http://h/a%20bc"),
        ("http://h/?", "http://h/"),
        ("http://h\\a\\b", "http://h/a/b"),
        ("http://[2001:DB8:0::1]:8080/", "http://[2001:db8::1]:8080/"),
    ],
)
def test_one_page_has_one_name(written: str, meant: str) -> None:
    assert normalise(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        "mailto:a@b.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://h/",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://user@h/",
        "http://user:pass@h/",
        "http://h:99999/",
        "http://h:x/",
        "http://-h/",
        "http://a..b/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://h/" + "a" * MAX_URL,
        "",
    ],
)
def test_what_leads_to_no_page_is_no_url(written: str) -> None:
    assert normalise(written) is None


def test_a_last_semicolon_is_kept() -> None:
    assert normalise("/b;?c", "http://h/a") == "http://h/b;?c"


@pytest.mark.parametrize("link", ["b", "/b", "?q", "../b", "//other/x", "", "#top"])
def test_links_are_read_as_the_standard_says(link: str) -> None:
    assert normalise(link, "http://h/a/c?z") == normalise(urljoin("http://h/a/c?z", link))


def test_a_path_that_grows_by_itself_is_seen() -> None:
    assert is_endless("http://h/" + "a/b/" * 4)
    assert is_endless("http://h/" + "/".join(str(n) for n in range(30)))
    assert not is_endless("http://h/a/b/a/b/a/")


def test_an_origin_is_scheme_host_and_port() -> None:
    assert origin_of("http://h:8080/a?b") == "http://h:8080"


def scope(*starts: str, **settings: object) -> Scope:
    return Scope(CrawlSettings(starts, **settings))  # type: ignore[arg-type]


def test_a_crawl_stays_on_its_site_unless_it_is_told_otherwise() -> None:
    site = scope("http://www.example.com/")
    assert all(site.admits(f"https://{host}/x") for host in ("example.com", "www.example.com", "docs.example.com"))
    assert not any(site.admits(f"http://{host}/") for host in ("badexample.com", "example.com.evil.net", "com"))
    assert not scope("http://www.example.com/", stay=Stay.HOST).admits("http://example.com/")
    assert scope("http://www.example.com/", stay=Stay.ANYWHERE).admits("http://other.net/")


def test_patterns_choose_by_url_or_by_path_and_start_urls_are_fetched_anyway() -> None:
    chosen = scope("http://h/", include=("/docs/*", "*://h/api?v=2"), exclude=("*.pdf", "/docs/[old]/*"))
    assert chosen.admits("http://h/")
    assert chosen.admits("http://h/docs/a")
    assert chosen.admits("http://h/api?v=2")
    assert not chosen.admits("http://h/blog")
    assert not chosen.admits("http://h/docs/a.pdf")
    assert not chosen.admits("http://h/docs/[old]/a")
    assert chosen.admits("http://h/docs/o/a")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"start_urls": ()}, "start_urls"),
        ({"start_urls": ("gopher://h/",)}, "start_urls"),
        ({"start_urls": ("http://u:p@h/",)}, "start_urls"),
        ({"max_pages": 0}, "max_pages"),
        ({"max_depth": 51}, "max_depth"),
        ({"max_concurrent": 33}, "max_concurrent"),
        ({"user_agents": ()}, "user_agents"),
        ({"user_agents": ("a\r\nX: y",)}, "user_agents"),
        ({"user_agents": ("Böt",)}, "user_agents"),
        ({"include": ("x" * 501,)}, "include"),
    ],
)
def test_settings_out_of_their_bounds_are_refused_by_name(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Scope(CrawlSettings(**{"start_urls": ("http://h/",), **changes}))  # type: ignore[arg-type]
    assert field in raised.value.message
