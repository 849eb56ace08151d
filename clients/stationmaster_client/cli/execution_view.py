"""An execution's events as people read them: lines as they come and, at a terminal, a bar below them."""

from __future__ import annotations

import re
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from stationmaster_client.cli.output import Output, clean
from stationmaster_client.cli.progress import Gauge, told
from stationmaster_client.cli.transcript import arguments, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from stationmaster.v1 import event_pb2

    from stationmaster_client import Interruption

_PACE = timedelta(seconds=5)
"""Between two lines of progress where there is no bar."""
_REQUEST = re.compile(r"sessions/[0-9a-f-]+/permissionRequests/[0-9a-f-]+")
_LOOKS = {"debug": ("·", "dim"), "info": ("·", ""), "warning": ("!", "yellow"), "error": ("✗", "red")}


class ExecutionView:
    """Answers of a model go to standard output, all else beside it."""

    def __init__(self, out: Output) -> None:
        self.said = ""
        """The last that a model said."""
        self._console, self._notes = out.console, out.notes
        self._gauge = Gauge(self._notes.width)
        self._live = self._notes.is_terminal and not self._notes.is_dumb_terminal and not out.as_json
        self._stack = ExitStack()
        self._interrupted = False
        self._told_at: datetime | None = None
        self._untold = False
        self._attempt = 0

    def __enter__(self) -> Self:
        if self._live:
            from rich.live import Live

            self._stack.enter_context(
                Live(self._gauge, console=self._notes, refresh_per_second=8, transient=True, redirect_stdout=False)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def counters(self) -> Mapping[str, int]:
        """What it has counted, as it said last."""
        return self._gauge.counters

    def show(self, event: event_pb2.Event) -> None:
        """Show one event."""
        self.connected()
        kind = event.WhichOneof("payload") or ""
        show = getattr(self, f"_{kind}", None)
        if show is not None:
            show(getattr(event, kind), event.create_time.ToDatetime(UTC))

    def interrupted(self, interruption: Interruption) -> None:
        """Say once that the connection is lost; the next event tells that it is back."""
        if not self._interrupted:
            self._interrupted = True
            self._line(f"⚡ connection lost, going on after event {interruption.after_sequence}", "yellow")

    def connected(self) -> None:
        """Say, if the connection was lost, that it is back."""
        if self._interrupted:
            self._interrupted = False
            self._line("↻ connected again", "green")

    def _line(self, text: str, style: str = "") -> None:
        self._notes.print(clean(text), style=style or None, soft_wrap=True)

    def _answer(self, text: str) -> None:
        if self._console.is_terminal:
            self._console.print(clean(text), soft_wrap=True)
        else:  # Not through rich, which would change tabs.
            self._console.file.write(f"{clean(text)}\n")
            self._console.file.flush()

    def _execution_state_changed(self, changed: event_pb2.ExecutionStateChanged, at: datetime) -> None:
        self._tell_progress()
        gauge, state = self._gauge, changed.state
        gauge.label = state.lower()
        gauge.message, gauge.fraction = "", None
        why = changed.message or changed.reason
        if state == "RUNNING":
            self._runs(changed.attempt, at, why)
        elif state == "BLOCKED":
            self._line(f"… {why or 'waits for the tasks that it depends on'}")
        elif state == "QUEUED" and changed.reason == "HANDED_BACK":
            gauge.label = "waits to go on"
        elif state == "QUEUED" and changed.HasField("retry_time"):
            wait = (changed.retry_time.ToDatetime(UTC) - at).total_seconds()
            self._line(f"✗ attempt {changed.attempt} failed: {why}; again in {max(0.0, wait):.0f} s", "yellow")
            gauge.label = "waits for another attempt"
        elif state == "QUEUED" and why:
            self._line(f"… queued again: {why}")

    def _runs(self, attempt: int, at: datetime, why: str) -> None:
        """Which attempt runs; one that goes on, after waiting for a person, is no news. `why` the one before ended."""
        if why and attempt != self._attempt:
            self._line(f"✗ attempt {attempt - 1} failed: {why}", "yellow")
        self._gauge.since = self._gauge.since or at
        if attempt > 1:
            self._gauge.label = f"running, attempt {attempt}"
        if attempt != self._attempt and not self._live:
            self._line(f"▸ attempt {attempt} runs" if attempt > 1 else "▸ runs")
        self._attempt = attempt

    def _execution_progress(self, progress: event_pb2.ExecutionProgress, at: datetime) -> None:
        gauge = self._gauge
        gauge.fraction = progress.fraction if progress.HasField("fraction") else None
        gauge.message, gauge.counters = progress.message, dict(progress.counters)
        self._untold = not self._live
        if self._told_at is None or at - self._told_at >= _PACE:
            self._told_at = at
            self._tell_progress()

    def _tell_progress(self) -> None:
        """Print the newest progress where there is no bar, once."""
        if self._untold:
            self._untold = False
            share = "" if self._gauge.fraction is None else f"{self._gauge.fraction:.0%}"
            doing = told(self._gauge.message, self._gauge.counters)
            self._line("  ".join(part for part in ("…", share, doing) if part))

    def _execution_log(self, log: event_pb2.ExecutionLog, at: datetime) -> None:
        mark, style = _LOOKS.get(log.level, _LOOKS["info"])
        self._line(f"{mark} {log.text}", style)
        if asked := _REQUEST.search(log.text):
            self._line(f"  answer: stationmaster permissions allow {asked[0]}")

    def _message_added(self, added: event_pb2.MessageAdded, at: datetime) -> None:
        from stationmaster.v1 import event_pb2

        assistant = added.message.role == event_pb2.MESSAGE_ROLE_ASSISTANT
        text = "".join(part.text for part in added.message.parts)
        if text and assistant:
            self.said = text
            self._answer(text)
        elif text and added.message.role == event_pb2.MESSAGE_ROLE_USER:
            self._line(f"» {shorten(text)}", "bold cyan")
        for part in added.message.parts:
            if part.HasField("tool_call"):
                self._line(f"⚙ {part.tool_call.tool} {arguments(part.tool_call.arguments)}", "cyan")
            elif part.HasField("tool_result"):
                failed = part.tool_result.is_error
                content = shorten(part.tool_result.content)
                self._line(f"  {'✗' if failed else '✓'} {content}", "red" if failed else "green")
