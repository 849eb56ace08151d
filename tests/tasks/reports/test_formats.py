"""Every format tells the whole report, in a shape that is fit for its readers."""

from __future__ import annotations

import html
import json
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise

import pypdf
import pytest
from markdown_it import MarkdownIt
from stationmaster_server.storage.model import ReportFormat
from stationmaster_server.tasks.reports.as_html import as_html
from stationmaster_server.tasks.reports.as_json import as_json
from stationmaster_server.tasks.reports.as_markdown import as_markdown
from stationmaster_server.tasks.reports.as_pdf import as_pdf
from stationmaster_server.tasks.reports.model import Progress, Report, Section, Table
from stationmaster_server.tasks.reports.rendering import RENDERERS, TIME_LIMIT

from tests.tasks.reports.samples import EXECUTION, failed, succeeded

# What every format says of `succeeded`, as plain words.
TOLD = (
    "Find conflicts in the winter timetable",
    EXECUTION,
    "tasks/timetable-check",
    "You check timetables.",
    "Which trains are in each other",
    "files.read",
    "train,platform,at",
    "permission denied: the workspace is read-only",
    "MODEL_UNAVAILABLE: the provider answered 529 (overloaded)",
    "anthropic:claude-haiku-5",
    "The timetable has",
    "conflicts",
    "A timetable is a promise",
    "everybody",
    "interrupted",
    "reading the timetable",
    "export/part-0005.jsonl",
    "The summary was made from the last 50 messages.",
)
FIGURES = ("1 min 32 s", "60,762", "$0.20", "48,211", "1,284")


def text_of_html(page: bytes) -> str:
    """What a browser shows, with spaces as they come."""
    shown: list[str] = []

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = False

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            self.hidden = tag == "style"

        def handle_endtag(self, tag: str) -> None:
            self.hidden = False

        def handle_data(self, data: str) -> None:
            if not self.hidden:
                shown.append(data)

    Reader().feed(page.decode())
    return "".join(shown)


def text_of_pdf(file: bytes) -> str:
    """The words of all pages."""
    pages = pypdf.PdfReader(BytesIO(file)).pages
    return " ".join("\n".join(page.extract_text() for page in pages).split())


TEXTS: dict[ReportFormat, Callable[[bytes], str]] = {
    ReportFormat.JSON: lambda file: file.decode(),
    ReportFormat.MARKDOWN: lambda file: file.decode(),
    ReportFormat.HTML: text_of_html,
    ReportFormat.PDF: text_of_pdf,
}


@pytest.mark.parametrize("report_format", ReportFormat)
def test_every_format_tells_conversation_calls_errors_and_files(report_format: ReportFormat) -> None:
    text = TEXTS[report_format](RENDERERS[report_format](succeeded()))
    assert [words for words in TOLD if words not in text] == []


@pytest.mark.parametrize("report_format", [each for each in ReportFormat if each is not ReportFormat.JSON])
def test_every_format_for_people_has_the_figures(report_format: ReportFormat) -> None:
    text = TEXTS[report_format](RENDERERS[report_format](succeeded()))
    assert [figure for figure in FIGURES if figure not in text] == []


def test_json_has_every_field_with_times_and_lengths_as_programs_read_them() -> None:
    data = json.loads(as_json(succeeded()))
    assert data["schema"] == "stationmaster.report/1"
    assert data["state"] == "SUCCEEDED"
    assert (data["created_at"], data["finished_at"]) == ("2026-11-25T09:30:00Z", "2026-11-25T09:31:35Z")
    assert data["conversation"][2]["latency"] == 12.8
    calls = data["conversation"][2]["tool_calls"]
    assert [call["name"] for call in calls] == ["files.read", "conflicts", "files.write"]
    assert data["totals"]["models"][0] == {
        "model": "anthropic:claude-sonnet-5",
        "calls": 5,
        "input_tokens": 48_211,
        "output_tokens": 3_020,
        "cost_micros": 189_933,
    }
    assert data["progress"]["counters"] == {"trains checked": 1_284, "conflicts": 3}
    assert {span["kind"] for span in data["spans"]} == {"QUEUED", "ATTEMPT", "MODEL", "TOOL"}
    assert data["sections"][0]["table"]["numeric"] == [1, 2]


def test_markdown_has_the_headings_of_the_report_and_those_of_agents_below_them() -> None:
    report = succeeded()
    shouting = replace(report.conversation[1], text="# Mine\n\nand\n\nunderlined\n===")
    tokens = MarkdownIt().parse(as_markdown(replace(report, conversation=(shouting,))).decode())
    headings = [(at.tag, after.content) for at, after in pairwise(tokens) if at.type == "heading_open"]
    assert headings == [
        ("h1", "Find conflicts in the winter timetable"),
        *(("h2", name) for name in ("Errors", "Timings", "Usage", "Progress", "Exported files", "Conversation")),
        ("h3", "User"),
        ("h4", "Mine"),
        ("h4", "underlined"),
        ("h2", "Notes"),
    ]


def test_html_draws_the_chart_and_needs_nothing_from_elsewhere() -> None:
    page = as_html(succeeded()).decode()
    assert page.count("<svg") == 1
    assert page.count("<rect ") == 13
    assert "default-src 'none'; style-src 'sha256-" in html.unescape(page)
    assert not re.search(r"<(script|img|iframe|link|object|embed|form)\b|\sstyle=|\son\w+=|@import|url\(", page)
    assert re.findall(r'(?:href|src)="([^"#][^"]*)"', page) == ["https://example.com/rules?chapter=4&amp;page=2"]


def test_html_is_balanced() -> None:
    open_tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            if tag not in {"meta", "br", "hr"}:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Reader().feed(as_html(succeeded()).decode())
    assert open_tags == []


def test_ids_are_copied_from_a_pdf_as_they_are() -> None:
    code = Section("Where", f"In `{EXECUTION}`, see {EXECUTION}.", Table(("Name", "Of"), ((EXECUTION, "this"),)))
    report = replace(failed(), title=f"About {EXECUTION}", sections=(code,))
    reader = pypdf.PdfReader(BytesIO(as_pdf(report)))
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert "\u200b" not in text
    assert text.count(EXECUTION) >= 4, text
    assert reader.metadata is not None
    assert reader.metadata.title == f"About {EXECUTION}"


def test_long_words_of_a_pdf_end_within_its_lines() -> None:
    long = "abcdefgh" * 40
    texts = f"{long}\n\nIn `{long}`\n\n```\n    {long}\n```\n\n```python\nreturn '{long[:200]}'\n```\n"
    report = replace(failed(), sections=(Section("Long", texts, Table(("Name", "Of"), ((long, "this"),))),))
    text = "\n".join(page.extract_text() for page in pypdf.PdfReader(BytesIO(as_pdf(report))).pages)
    assert max(map(len, text.split("\n"))) < 150


def test_pdf_has_a_title_page_numbers_and_bookmarks() -> None:
    reader = pypdf.PdfReader(BytesIO(as_pdf(succeeded())))
    assert reader.metadata is not None
    assert reader.metadata.title == "Find conflicts in the winter timetable"
    assert reader.metadata.subject == f"Report of {EXECUTION}"
    assert str(reader.metadata.creation_date) == "2026-11-25 09:31:35+00:00"
    count = len(reader.pages)
    assert count >= 2
    for number, page in enumerate(reader.pages, 1):
        assert f"{number} of {count}" in page.extract_text()
    titles = [str(mark["/Title"]) for mark in reader.outline if not isinstance(mark, list)]
    assert titles == ["Errors", "Timings", "Usage", "Progress", "Exported files", "Conversation", "Notes"]


@pytest.mark.parametrize("count", range(26, 31))
def test_no_row_of_a_table_is_alone_on_a_page_of_the_pdf(count: int) -> None:
    rows = tuple((f"https://example.com/{number}", f"Title {number}", "200") for number in range(count))
    pages = Section("Pages", table=Table(("URL", "Title", "Status"), rows, frozenset({2})))
    report = replace(failed(), attempts=(), spans=(), progress=Progress(), sections=(pages,), reason="")
    reader = pypdf.PdfReader(BytesIO(as_pdf(report)))
    shown = [len(re.findall(r"\b200\b", page.extract_text())) for page in reader.pages]
    assert sum(shown) == count
    assert 1 not in shown


def test_short_cells_of_a_table_in_html_are_never_broken() -> None:
    rows = (("rate_limit_seconds", "0.5"), ("prompt", "Find what is in the way. " * 10))
    payload = Section("Payload", table=Table(("Field", "Value"), rows))
    page = as_html(replace(succeeded(), sections=(payload,))).decode()
    assert '<td dir="auto" class="short">rate_limit_seconds</td>' in page
    assert '<td dir="auto">Find what' in page
    assert "td.short { white-space: nowrap; }" in page


def test_pdf_has_a_glyph_for_every_script_of_the_sample() -> None:
    text = text_of_pdf(as_pdf(succeeded()))
    for words in ("列车将于九点四十二分", "日本語", "기차는 사번 승강장에서", "ไทย", "Поезд", "τρένο", "→"):
        assert words in text
    for letters in ("हिन्दी", "தமிழ்", "বাংলা", "తెలుగు", "הרכבת", "القطار"):  # whose order in a PDF is that of their shapes
        assert set(letters) <= set(text), letters
    assert "\ufffd" not in text


def test_the_same_report_gives_the_same_bytes() -> None:
    for renderer in RENDERERS.values():
        assert renderer(succeeded()) == renderer(succeeded())


@pytest.mark.parametrize("report_format", ReportFormat)
def test_a_report_of_next_to_nothing_is_a_report(report_format: ReportFormat) -> None:
    full = succeeded()
    bare = Report("", EXECUTION, "prompt", "QUEUED", full.owner, full.created_at)
    assert "Untitled" in TEXTS[report_format](RENDERERS[report_format](bare))


@pytest.mark.parametrize("report_format", ReportFormat)
def test_an_execution_that_died_shows_every_attempts_error(report_format: ReportFormat) -> None:
    text = TEXTS[report_format](RENDERERS[report_format](failed()))
    assert text.count("did not answer within 30 s") == 3
    assert "The task failed three times" in text


def test_reports_are_rendered_in_another_process() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for report_format, renderer in RENDERERS.items():
            there = pool.submit(renderer, succeeded()).result(TIME_LIMIT.total_seconds())
            assert there == renderer(succeeded()), report_format
