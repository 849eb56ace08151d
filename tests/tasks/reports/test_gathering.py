"""What a report needs of a stream is kept, however long the stream is, and what is not is said."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from stationmaster_server.events.model import Event
from stationmaster_server.tasks.reports.gathering import LINES, Gathered

AT = datetime(2026, 11, 26, tzinfo=UTC)


def event(sequence: int, kind: str, **body: object) -> Event:
    return Event(uuid4(), sequence, kind, body, AT)


def test_of_a_short_stream_everything_but_old_progress_is_kept_in_its_order() -> None:
    stream = [
        event(1, "execution_state_changed", state="QUEUED"),
        event(2, "execution_log", text="begins"),
        event(3, "execution_progress", fraction=0.1),
        event(4, "execution_progress", fraction=0.2),
        event(5, "execution_state_changed", state="SUCCEEDED"),
    ]
    gathered = Gathered()
    gathered.add(stream[:3])
    gathered.add(stream[3:])
    assert [one.sequence for one in gathered.events] == [1, 2, 4, 5]
    assert gathered.notes == ()


def test_a_long_stream_keeps_its_end_its_newest_progress_and_says_what_is_left_out() -> None:
    total = 3 * LINES
    gathered = Gathered()
    gathered.add([event(1, "execution_state_changed", state="RUNNING")])
    for number in range(2, total + 2):
        gathered.add([event(number, "execution_log", text=str(number))])
        gathered.add([event(total + number, "execution_progress", counters={"fetched": number})])
    gathered.add([event(3 * total, "execution_state_changed", state="SUCCEEDED")])
    events = gathered.events
    lines = [one.sequence for one in events if one.kind == "execution_log"]
    half = LINES // 2
    assert lines == [*range(2, 2 + half), *range(total + 2 - half, total + 2)]
    assert [one.body for one in events if one.kind == "execution_progress"] == [{"counters": {"fetched": total + 1}}]
    assert events[-1].body == {"state": "SUCCEEDED"}
    assert gathered.notes == (
        f"{total - LINES:,} log lines are left out of this report, between the first {half} and the last.",
    )
