"""The chart of timings: lanes over one line of time, whatever the spans are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.tasks.reports.chart import Chart, chart, legend
from stationmaster_server.tasks.reports.chart_svg import to_svg
from stationmaster_server.tasks.reports.chart_text import to_text
from stationmaster_server.tasks.reports.figures import cost, span
from stationmaster_server.tasks.reports.model import Span, SpanKind

from tests.tasks.reports.samples import START, after, succeeded


def drawn(*spans: Span) -> Chart:
    made = chart(replace(succeeded(), spans=spans))
    assert made is not None
    return made


def test_spans_of_one_name_share_a_lane_and_those_at_once_lie_in_rows() -> None:
    made = drawn(*succeeded().spans)
    assert [lane.label for lane in made.lanes] == [
        *("Queued", "Attempts", "claude-sonnet-5", "claude-haiku-5"),
        *("files.read", "conflicts", "files.write"),
    ]
    assert [lane.rows for lane in made.lanes] == [1, 1, 1, 2, 1, 1, 1]
    assert made.lanes[1].figure == "2 \N{MULTIPLICATION SIGN} · 1 min 22 s"
    assert [tick.label for tick in made.ticks] == ["0", "30 s", "1 min", "1.5 min"]
    assert [name for _, name in legend(made)] == ["waiting", "attempts", "model calls", "tool calls", "failed"]


def test_there_is_no_chart_without_spans() -> None:
    assert chart(replace(succeeded(), spans=())) is None


def test_a_span_without_an_end_lasts_as_long_as_the_execution() -> None:
    (lane,) = drawn(Span(SpanKind.ATTEMPT, "1", START)).lanes
    assert (lane.bars[0].start, lane.bars[0].end) == (0.0, 1.0)


def test_many_tools_share_the_last_lane() -> None:
    made = drawn(*(Span(SpanKind.TOOL, f"tool-{n}", after(n), after(n + 1 + n / 100)) for n in range(100)))
    assert len(made.lanes) == 14
    assert made.lanes[-1].label == "Others"
    assert sum(len(lane.bars) for lane in made.lanes) == 100


SPANS = st.builds(
    Span,
    st.sampled_from(SpanKind),
    st.text(max_size=40),
    st.floats(-1e6, 1e6).map(after),
    st.none() | st.floats(-1e6, 1e6).map(after),
    st.booleans(),
)


@given(st.lists(SPANS, min_size=1, max_size=60))
def test_every_bar_is_on_the_chart(spans: list[Span]) -> None:
    made = drawn(*spans)
    assert sum(len(lane.bars) for lane in made.lanes) == len(spans)
    for lane in made.lanes:
        for bar in lane.bars:
            assert 0 <= bar.start <= bar.end <= 1
            assert 0 <= bar.row < lane.rows <= 4
    assert all(0 <= tick.at <= 1 for tick in made.ticks)
    assert len(made.ticks) <= 7
    assert to_svg(made).count("<rect ") == len(spans)
    assert len(to_text(made).split("\n")) == len(made.lanes) + 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.0004, "0 ms"),
        (0.9999, "1.0 s"),
        (1.26, "1.3 s"),
        (59.96, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (7384, "2 h 03 min"),
        (273_600, "3 d 04 h"),
        (-5, "0 ms"),
    ],
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert span(timedelta(seconds=seconds)) == words


def test_small_costs_show_what_they_are() -> None:
    assert [cost(micros) for micros in (0, 7, 8_940, 99_999, 100_000, 1_234_567_890)] == [
        *("$0.00", "$0.000007", "$0.00894", "$0.099999", "$0.10", "$1,234.57"),
    ]
