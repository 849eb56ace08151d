"""What a report leaves out is bounded, and said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stationmaster_server.tasks.reports.bounds import (
    CALL,
    COLUMNS,
    ENTRIES,
    ROWS,
    SPANS,
    TEXT,
    TOTAL,
    bounded,
    clean,
    cut,
    line,
)
from stationmaster_server.tasks.reports.model import Entry, Report, Section, Span, SpanKind, Table, ToolCall

from tests.tasks.reports.samples import after, succeeded


def talk(*entries: Entry) -> Report:
    return replace(succeeded(), conversation=entries)


def test_a_report_within_the_bounds_is_told_whole() -> None:
    assert bounded(succeeded()) == succeeded()


def test_a_long_message_is_cut_and_says_by_how_much() -> None:
    (entry,) = bounded(talk(Entry("user", "x" * (TEXT + 1234)))).conversation
    assert entry.text == "x" * TEXT + " … [1,234 more characters are left out]"


def test_arguments_and_results_are_cut_each() -> None:
    call = ToolCall("read", "a" * (CALL + 1), "r" * (CALL + 2))
    (kept,) = bounded(talk(Entry("assistant", "", tool_calls=(call,)))).conversation[0].tool_calls
    assert kept.arguments.endswith("[1 more characters are left out]")
    assert kept.result.endswith("[2 more characters are left out]")


def test_all_texts_together_are_bounded_in_the_order_of_reading() -> None:
    count = 2 * TOTAL // TEXT
    report = bounded(talk(*(Entry("user", "x" * TEXT) for _ in range(count))))
    assert sum(entry.text.count("x") for entry in report.conversation) <= TOTAL
    assert report.conversation[0].text == "x" * TEXT
    assert report.conversation[-1].text == f" … [{TEXT:,} more characters are left out]"


def test_of_many_messages_the_first_and_the_last_are_told() -> None:
    report = bounded(talk(*(Entry("user", str(number)) for number in range(ENTRIES + 37))))
    assert len(report.conversation) == ENTRIES
    assert (report.conversation[0].text, report.conversation[-1].text) == ("0", str(ENTRIES + 36))
    assert f"37 messages are left out of this report, between the first {ENTRIES // 2} and the last." in report.notes


def test_tables_are_bounded_in_rows_and_columns_and_made_even() -> None:
    rows = tuple((str(number),) * (number % 30) for number in range(ROWS + 5))
    table = Table(tuple(f"c{number}" for number in range(COLUMNS + 3)), rows)
    report = bounded(replace(succeeded(), sections=(Section("Pages", "", table),)))
    kept = report.sections[0].table
    assert kept is not None
    assert (len(kept.columns), len(kept.rows)) == (COLUMNS, ROWS)
    assert {len(row) for row in kept.rows} == {COLUMNS}
    assert any("3 more columns of “Pages”" in note for note in report.notes)
    assert any("5 rows of “Pages”" in note for note in report.notes)


def test_spans_are_bounded() -> None:
    spans = tuple(Span(SpanKind.TOOL, "t", after(n), after(n + 1)) for n in range(SPANS + 1))
    assert len(bounded(replace(succeeded(), spans=spans)).spans) == SPANS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("a\0b\x1b[31m", "a\ufffdb\ufffd[31m"),
        ("\u202eabc\u202c", "\ufffdabc\ufffd"),
        ("\ud800", "\ufffd"),
        ("e" + "\u0301" * 100, "e" + "\u0301" * 12),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\u200d\U0001f4bb"),
    ],
)
def test_what_cannot_be_shown_is_not(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_chain_of_emoji_is_parted() -> None:
    chain = clean("\U0001f469\u200d" * 1000)
    assert max(len(part) for part in chain.replace("\U0001f469\U0001f469", "\U0001f469 \U0001f469").split()) < 30


def test_names_are_one_line() -> None:
    assert line(" a\n\n b\t c ") == "a b c"
    assert line("x" * 1000) == "x" * 299 + "…"
    assert cut("abc", 3) == "abc"
