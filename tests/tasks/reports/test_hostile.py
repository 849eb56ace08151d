"""Whatever agents, tools and pages put into a report stays text: it runs nothing, breaks nothing and ends in time."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise

import pypdf
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from stationmaster_server.tasks.reports.as_html import as_html
from stationmaster_server.tasks.reports.as_json import as_json
from stationmaster_server.tasks.reports.as_markdown import as_markdown
from stationmaster_server.tasks.reports.as_pdf import as_pdf
from stationmaster_server.tasks.reports.model import Attempt, Entry, Report, Section, Table, ToolCall
from stationmaster_server.tasks.reports.rendering import RENDERERS

from tests.tasks.reports.samples import after, succeeded

CODE = (
    '#panic("ran")',
    '#read("/etc/passwd")',
    "#let x = 1; #x",
    '#import "@preview/evil:1.0.0": *',
    "$ sum_(i=0)^n $ @label <label> = Heading",
    '#eval("panic()")',
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    '"><svg onload=alert(1)>',
    "</style></title></head><body onload=alert(1)>",
    "</code></pre></details></article><script>alert(1)</script>",
    "[click](javascript:alert(1)) [data](data:text/html;base64,PHNjcmlwdD4=) <javascript:alert(1)>",
    "![](https://tracker.example/pixel.png) ![x](file:///etc/passwd)",
    "[a]: javascript:alert(1)\n\n[a] [x][a]",
    "&lt;script&gt; &#60;script&#62; &amp;lt;",
    "{{ 7 * 7 }} {% raw %} {# #} ${7*7}",
    "```\n<script>alert(1)</script>\n",
    "````typst\n#panic()\n```` \n#panic()",
    "~~~\n~~~\n\n# Escaped\n",
    "- a\n\n# Escaped",
    "> quote\n# Escaped",
    "Setext\n======\n\nAnother\n---",
    "| a | b |\n|---|---|\n| <b>x</b> | `|` \\| |",
    "<!-- --> <?php ?> <![CDATA[ ]]> <!DOCTYPE x>",
    "\u202eevil\u202c \u2066x\u2069 a\u200bb\u0000\u0007\ud800",
    "![a]\\\n(b) !\\[x](https://e.example) *a*_b_ **c**d __e__f `` ` ``",
)
BOMBS = (
    "[" * 200_000,
    "![" * 100_000,
    "*" * 200_000 + "a" + "*" * 200_000,
    ">" * 200_000,
    "- " * 100_000,
    "".join("  " * n + "- a\n" for n in range(400)),
    "|" * 100_000 + "\n" + "|-" * 100_000,
    "a|b\n-|-\n" + "|\n" * 100_000,
    "`a" * 100_000,
    "<" * 200_000,
    "a" * 1_000_000,
    "中" * 1_000_000,
    "a" + "\u0301" * 1_000_000,
    "\U0001f469\u200d" * 200_000,
    "# a\n" * 100_000,
    "a\n\n" * 100_000,
    "1.\n" * 100_000,
    "~~~\n" * 100_000,
    "```python\n" + "x = ((((\n" * 100_000,
    "\n" * 1_000_000,
    "\t" * 1_000_000,
)
LIMIT_SECONDS = 60
"""Generous: the bound is on what is rendered, and machines may be busy. Unbounded, these would take hours."""


def holding(text: str) -> Report:
    """A report that has the text in every place that takes one."""
    return replace(
        succeeded(),
        title=text,
        task=text,
        kind=text,
        state=text,
        reason=text,
        owner=text,
        attempts=(Attempt(1, after(1), after(2), text, f"{text} failed"),),
        conversation=(
            Entry(text, text, after(1), text, note=text, tool_calls=(ToolCall(text, text, text, text),)),
            Entry("assistant", f"{text}\n\nafter", after(2)),
        ),
        sections=(Section(text, text, Table((text, text), ((text, text), (text,)), frozenset({1}))),),
        notes=(text,),
    )


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.targets: set[str] = set()
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.targets |= {value or "" for name, value in attributes if name in ("href", "src")}


PLAIN = Page(as_html(succeeded()))
ALLOWED_TAGS = PLAIN.tags | {"em", "strong", "del", "blockquote", "ol", "ul", "hr", "code", "pre", "a", "br", "nav"}


def assert_harmless_html(report: Report) -> None:
    page = Page(as_html(report))
    assert page.tags <= ALLOWED_TAGS
    assert page.attributes <= PLAIN.attributes | {"start", "open", "id"}
    assert all(re.match(r"https?://|mailto:|#", target) for target in page.targets)


def assert_harmless_markdown(report: Report) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(as_markdown(report).decode())
    inlines = [child for token in tokens for child in token.children or ()]
    assert not [token for token in (*tokens, *inlines) if token.type in ("html_block", "html_inline", "image")]
    headings = [(at.tag, after.content) for at, after in pairwise(tokens) if at.type == "heading_open"]
    assert len([tag for tag, _ in headings if tag == "h1"]) == 1
    ours = ["Errors", "Timings", "Usage", "Progress", "Conversation", "Notes"]
    assert len([tag for tag, _ in headings if tag == "h2"]) == len(ours) + len(report.sections)
    assert [name for tag, name in headings if tag == "h2" and name in ours] == ours
    assert len([tag for tag, _ in headings if tag == "h3"]) == len(report.conversation)


def assert_sound_pdf(report: Report) -> pypdf.PdfReader:
    reader = pypdf.PdfReader(BytesIO(as_pdf(report)))
    assert "/OpenAction" not in reader.root_object
    assert "/JavaScript" not in reader.root_object.get("/Names", {})
    for page in reader.pages:
        for note in page.get("/Annots") or ():
            action = note.get_object().get("/A", {})
            assert action.get("/S", "/URI") == "/URI"
            assert re.match(r"https?://|mailto:", str(action.get("/URI", "https://")))
    return reader


@pytest.mark.parametrize("text", CODE)
def test_code_of_every_language_is_only_shown(text: str) -> None:
    report = holding(text)
    json.loads(as_json(report))
    assert_harmless_html(report)
    assert_harmless_markdown(report)
    assert_sound_pdf(report)


@pytest.mark.parametrize(
    "text", ['#panic("ran")', '#read("/etc/passwd")', "$ x $", "@label", "= Heading", "<script>1</script>"]
)
def test_code_is_shown_as_it_was_written(text: str) -> None:
    report = holding(text)
    words = "".join(page.extract_text() for page in assert_sound_pdf(report).pages).replace("\u200b", "")
    assert text in words
    assert re.sub("[<>]", "", text) in re.sub("[<>]", "", as_json(report).decode().replace('\\"', '"'))


@pytest.mark.parametrize("text", BOMBS, ids=lambda text: f"{text[:6]!r}")
def test_bombs_are_cut_and_end_in_time(text: str) -> None:
    call = ToolCall(text, text, text)
    report = replace(succeeded(), title=text, reason=text, conversation=(Entry("user", text, tool_calls=(call,)),))
    for renderer in RENDERERS.values():
        began = time.perf_counter()
        assert len(renderer(report)) < 8 * 1024 * 1024
        assert time.perf_counter() - began < LIMIT_SECONDS


LETTERS = "*_`~[]()<>!#|\\&-+=.:1 \n\t\"'{}$@/"
MARKS = st.sampled_from([*LETTERS, "a", "ß", "中", "ع", "https://e.example", "```", "\n\n"])
HOSTILE = st.lists(st.one_of(MARKS, st.sampled_from(CODE), st.text(max_size=8)), max_size=25).map("".join)
FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@given(HOSTILE)
@example("!")
@example("a\n    indented")
@example(" #")
def test_no_text_becomes_markup_of_html_or_markdown(text: str) -> None:
    report = holding(text)
    json.loads(as_json(report))
    assert_harmless_html(report)
    assert_harmless_markdown(report)


@settings(FEW, max_examples=40)
@given(HOSTILE)
def test_no_text_breaks_the_pdf(text: str) -> None:
    assert_sound_pdf(holding(text))


def test_a_panic_of_the_typesetter_is_an_ordinary_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stationmaster_server.tasks.reports.as_pdf.bounded", lambda report: report)
    chain = "\U0001f469\u200d" * 20_000  # one character of 140,000 bytes, which the bounds do not let through
    with pytest.raises(RuntimeError, match="could not be typeset"):
        as_pdf(replace(succeeded(), conversation=(Entry("user", chain),)))


def test_long_cells_do_not_squeeze_the_others_off_the_page() -> None:
    words = "word " * 80
    table = Table((words, words, "Size"), ((words, words, "1 KiB"), ("short", words, "2 KiB")), frozenset({2}))
    markdown = f"| {words} | {words} |\n| --- | --- |\n| a | {words} |"
    report = replace(succeeded(), conversation=(), sections=(Section("Pages", markdown, table),))
    assert len(assert_sound_pdf(report).pages) <= 4
