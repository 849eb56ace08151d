"""An execution's events on a terminal and on a pipe."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.cells import cell_len
from rich.console import Console
from stationmaster.v1 import event_pb2
from stationmaster_client import Interruption, errors
from stationmaster_client.cli.execution_view import ExecutionView
from stationmaster_client.cli.output import Output
from stationmaster_client.cli.progress import Gauge, took

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


class Pipe:
    """A view whose output and notes are files."""

    def __init__(self) -> None:
        self.out, self.err = StringIO(), StringIO()
        output = Output(as_json=False)
        vars(output)["console"] = Console(file=self.out, width=400, markup=False, highlight=False)
        vars(output)["errors"] = Console(file=self.err, width=400, markup=False, highlight=False)
        self.view = ExecutionView(output)

    def show(self, after: float = 0, **payload: Any) -> None:
        time = Timestamp()
        time.FromDatetime(BEGIN + timedelta(seconds=after))
        self.view.show(event_pb2.Event(create_time=time, **payload))

    def progress(self, after: float, fraction: float) -> None:
        self.show(after, execution_progress=event_pb2.ExecutionProgress(fraction=fraction, counters={"pages": 7}))

    def state(self, state: str, **fields: Any) -> None:
        self.show(execution_state_changed=event_pb2.ExecutionStateChanged(state=state, **fields))

    @property
    def notes(self) -> list[str]:
        return self.err.getvalue().splitlines()


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def test_progress_of_a_pipe_is_a_line_now_and_then_and_the_last_before_the_end(pipe: Pipe) -> None:
    for after, fraction in ((0, 0.1), (1, 0.2), (4, 0.3), (5, 0.4), (6, 0.5), (7, 0.6)):
        pipe.progress(after, fraction)
    pipe.state("SUCCEEDED", attempt=1)
    assert pipe.notes == ["…  10%  pages 7", "…  40%  pages 7", "…  60%  pages 7"]
    assert pipe.view.counters == {"pages": 7}


def test_attempts_are_told_once_each(pipe: Pipe) -> None:
    retry = Timestamp()
    retry.FromDatetime(BEGIN + timedelta(seconds=2))
    pipe.state("RUNNING", attempt=1)
    pipe.state("RUNNING", attempt=1)
    pipe.state("QUEUED", attempt=1, reason="TOLD", message="it failed", retry_time=retry)
    pipe.state("RUNNING", attempt=2)
    assert pipe.notes == ["▸ runs", "✗ attempt 1 failed: it failed; again in 2 s", "▸ attempt 2 runs"]


def test_what_is_handed_back_has_not_failed_and_goes_on_without_a_word(pipe: Pipe) -> None:
    again = Timestamp()
    again.FromDatetime(BEGIN + timedelta(seconds=5))
    for _ in range(3):
        pipe.state("RUNNING", attempt=1)
        pipe.state("QUEUED", attempt=1, reason="HANDED_BACK", retry_time=again)
    pipe.state("QUEUED", attempt=1, reason="HANDED_BACK")
    assert pipe.notes == ["▸ runs"]


def test_answer_goes_to_standard_output_as_it_is_but_steers_no_terminal(pipe: Pipe) -> None:
    message = event_pb2.Message(
        role=event_pb2.MESSAGE_ROLE_ASSISTANT, parts=[event_pb2.MessagePart(text="a\tb\x1b[31m 東京")]
    )
    pipe.show(message_added=event_pb2.MessageAdded(message=message))
    pipe.show(execution_log=event_pb2.ExecutionLog(level="error", text="\x1b[2Jgone"))
    assert pipe.out.getvalue() == "a\tb\N{REPLACEMENT CHARACTER}[31m 東京\n"
    assert pipe.notes == ["✗ \N{REPLACEMENT CHARACTER}[2Jgone"]


def test_interruption_is_told_once_and_its_end(pipe: Pipe) -> None:
    for attempt in (1, 2):
        pipe.view.interrupted(Interruption(errors.Unavailable("away"), attempt, 0.1, 7))
    pipe.progress(0, 0.5)
    assert pipe.notes[:2] == ["⚡ connection lost, going on after event 7", "↻ connected again"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_bar_keeps_to_two_lines_of_any_terminal(width: int) -> None:
    gauge = Gauge(width)
    gauge.label, gauge.fraction, gauge.since = "running, attempt 2", 0.42, datetime.now(UTC)
    gauge.message, gauge.counters = "東京" * 100, {"pages": 12_345}
    file = StringIO()
    Console(file=file, width=width, force_terminal=True, color_system=None).print(gauge)
    lines = file.getvalue().splitlines()
    assert len(lines) == 2
    assert all(cell_len(line) <= width for line in lines)


def test_how_long_it_took_is_told_in_few_characters() -> None:
    assert [took(seconds) for seconds in (-1, 0.44, 12.4, 185, 7207)] == ["0.0 s", "0.4 s", "12 s", "3:05", "2:00:07"]


def test_an_attempt_that_nobody_could_tell_of_is_told_when_the_next_one_begins(pipe: Pipe) -> None:
    pipe.state("RUNNING", attempt=1)
    pipe.state("RUNNING", attempt=2, reason="START_TO_CLOSE", message="the attempt took longer than 3 s")
    pipe.state("RUNNING", attempt=2, reason="START_TO_CLOSE", message="the attempt took longer than 3 s")
    assert pipe.notes == ["▸ runs", "✗ attempt 1 failed: the attempt took longer than 3 s", "▸ attempt 2 runs"]
