"""What a body is, and its text in whatever encoding."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.tasks.crawl.content import Kind, decode, is_readable, kind_of
from stationmaster_server.tasks.crawl.extract import extract

TEXT = "Gleis 9¾ € Straße"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html; charset=utf-8", TEXT.encode()),
        ("text/html", TEXT.encode()),
        ('text/html; charset="windows-1252"', TEXT.encode("cp1252")),
        ("text/html; charset=ISO-8859-1", TEXT.encode("cp1252")),
        ("text/html", b"<meta charset=windows-1252>" + TEXT.encode("cp1252")),
        ("text/html", b'<meta http-equiv=x content="text/html; charset=windows-1252">' + TEXT.encode("cp1252")),
        ("text/xml", b"<?xml version='1.0' encoding='windows-1252'?>" + TEXT.encode("cp1252")),
        ("text/html", TEXT.encode("cp1252")),
        ("text/html; charset=windows-1252", codecs.BOM_UTF8 + TEXT.encode()),
        ("text/html", codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le")),
        ("text/html", codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be")),
        ("text/html; charset=no-such-thing", TEXT.encode()),
        ("text/html; charset=unicode_escape", TEXT.encode()),
        ("text/html; charset=zlib_codec", TEXT.encode()),
        ("text/html; charset=\x00", TEXT.encode()),
    ],
)
def test_text_is_read_in_its_encoding(content_type: str, body: bytes) -> None:
    assert decode(content_type, body).endswith(TEXT)


@pytest.mark.parametrize(
    ("label", "text"),
    [("shift_jis", "駅"), ("euc-kr", "역"), ("big5", "車站"), ("gb2312", "车站"), ("koi8-r", "путь")],
)
def test_the_encodings_of_the_world_are_known(label: str, text: str) -> None:
    assert decode(f"text/html; charset={label}", text.encode(label)) == text


def test_broken_bytes_are_replaced() -> None:
    assert decode("text/html; charset=utf-8", b"a\xff\xfe\x00b") == "a\ufffd\ufffd\ufffdb"
    assert decode("text/html", TEXT.encode() * 50 + b"\xe2\x82").startswith(TEXT)


@given(st.binary(max_size=300), st.sampled_from(["", "text/html", "text/html; charset=utf-16", "text/plain"]))
def test_any_bytes_can_be_extracted_and_stored(body: bytes, content_type: str) -> None:
    found = extract(body, content_type, "http://h/")
    for text in (found.title, found.markdown):
        assert "\0" not in text
        assert text.encode().decode() == text


@pytest.mark.parametrize(
    ("content_type", "body", "kind"),
    [
        ("Text/HTML; charset=x", b"", Kind.HTML),
        ("application/xhtml+xml", b"", Kind.HTML),
        ("application/rss+xml", b"", Kind.XML),
        ("text/markdown", b"", Kind.MARKDOWN),
        ("", b"\xef\xbb\xbf \n<!DOCTYPE html>", Kind.HTML),
        ("", b"<?xml version='1.0'?>", Kind.XML),
        ("", b"words", Kind.TEXT),
        ("", b"\0\1", None),
        ("image/png", b"<html>", None),
    ],
)
def test_a_body_is_what_its_type_says_or_its_first_bytes(content_type: str, body: bytes, kind: Kind | None) -> None:
    assert kind_of(content_type, body) is kind
    assert is_readable(content_type) or kind is None


def test_the_main_text_is_kept_and_what_surrounds_it_is_not() -> None:
    body = (
        b"<html><head><title> A \n title </title></head><body><nav><a href=/n>Menu entry</a></nav><article>"
        b"<h1>Points</h1><p>The points are set <b>before</b> the train comes, and locked.</p>"
        b"<ul><li>one item of a list</li><li>another item of it</li></ul>"
        b"<table><tr><th>track</th><th>state</th></tr><tr><td>1</td><td>free</td></tr></table>"
        b"<pre><code>set points</code></pre></article><script>alert(1)</script></body></html>"
    )
    found = extract(body, "text/html", "http://h/a")
    assert found.title == "A title"
    assert "# Points" in found.markdown
    assert "**before**" in found.markdown
    assert "- one item of a list" in found.markdown
    assert "| track | state |" in found.markdown
    assert "alert" not in found.markdown
    assert found.links == ("http://h/n",)


def test_xhtml_that_declares_its_encoding_is_read() -> None:
    head = '<?xml version="1.0" encoding="windows-1252"?>'
    body = f"{head}<html><body><p>Straße und Gleis, ein ganzer Satz.</p></body></html>"
    assert "Straße" in extract(body.encode("cp1252"), "application/xhtml+xml", "http://h/").markdown


def test_frames_and_refreshes_are_links_too() -> None:
    body = (
        b'<meta http-equiv="Refresh" content="5; URL=\'/later\'"><iframe src=/inner></iframe>'
        b"<map><area href=/area></map><link rel=next href=/next><a href='/a'>a</a>"
    )
    links = set(extract(body, "text/html", "http://h/").links)
    assert links == {f"http://h/{name}" for name in ("later", "inner", "area", "next", "a")}
    frames = b"<html><frameset><frame src=/frame></frameset></html>"
    assert extract(frames, "text/html", "http://h/").links == ("http://h/frame",)


def test_a_page_without_a_main_text_gives_all_its_text() -> None:
    found = extract(b"<body>hi<script>x()</script><style>y</style></body>", "text/html", "http://h/")
    assert "hi" in found.markdown
    assert "x()" not in found.markdown


def test_a_short_page_keeps_its_headings_links_lists_tables_and_code() -> None:
    body = (
        b"<html><body><nav><a href=/n>Menu</a></nav><h1>Points</h1><p>See <a href='rules'>the <b>rules</b></a>.</p>"
        b"<table><tr><th>track</th><th>state</th></tr><tr><td>1</td><td>free | open</td></tr></table>"
        b"<pre>set points\n  now</pre><ul><li>one<ul><li>inner</li></ul></li><li>two</li></ul>"
        b"<blockquote>Mind the gap.</blockquote><script>x()</script></body></html>"
    )
    assert extract(body, "text/html", "http://h/a/").markdown == (
        "# Points\n\nSee [the **rules**](http://h/a/rules).\n\n"
        "| track | state |\n| --- | --- |\n| 1 | free \\| open |\n\n"
        "```\nset points\n  now\n```\n\n- one\n  - inner\n- two\n\n> Mind the gap."
    )


def test_a_page_of_elements_in_each_other_without_end_is_read() -> None:
    body = b"<body>" + b"<div><b>" * 20_000 + b"deep"
    assert "deep" in extract(body, "text/html", "http://h/").markdown
