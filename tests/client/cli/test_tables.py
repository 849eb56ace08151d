"""What tables show of what they have, at a terminal of eighty columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console
from stationmaster.v1 import task_pb2
from stationmaster_client.cli import queue
from stationmaster_client.cli.output import Output
from stationmaster_client.cli.tasks_shown import matched


@pytest.mark.parametrize("name", ["crawl", "word_count", "a_kind_with_quite_a_long_name"])
def test_the_queue_loses_no_number_at_eighty_columns(name: str) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=59)
    kind = task_pb2.GetQueueStatsResponse.KindStats(
        kind=name,
        blocked_count=9_990,
        queued_count=8_880,
        running_count=7_770,
        failed_count=6_660,
        succeeded_last_hour_count=55_550,
        failed_last_hour_count=4_440,
        cancelled_last_hour_count=33_330,
    )
    kind.oldest_queued_time.FromDatetime(long_ago)
    file = StringIO()
    console = Console(file=file, width=80)
    heads, gap = queue.shape(console.width)
    console.print(Output(as_json=False).grid(heads, [queue.row(kind)], gap=gap))
    shown = file.getvalue()
    for words in ("KIND", "BLOCKED", "QUEUED", "OLDEST", "RUNNING", "FAILED", "CANCELLED", name[:12], "59 min"):
        assert words in shown
    for number in ("9,990", "8,880", "7,770", "6,660", "55,550", "4,440", "33,330"):
        assert number in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_hit_is_shown_with_what_surrounds_it_and_without_its_marks() -> None:
    snippet = "Timetables are made by the desk.\nIn the evening they feed a **penguin** at the **zoo**"
    shown = matched(snippet)
    assert shown.plain == "… evening they feed a penguin at the zoo"
    assert [shown.plain[span.start : span.end] for span in shown.spans if span.style == "bold"] == ["penguin", "zoo"]
    assert matched("no match\nat all").plain == "no match at all"
