"""A conversation's events as people read them, printed as they come."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from stationmaster_client.cli.output import clean, dollars, plain
from stationmaster_client.structs import values

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct
    from rich.console import Console
    from stationmaster.v1 import event_pb2

    from stationmaster_client import Interruption

_LINE = 100
_ENDS = {
    "CANCELLED": "the turn was cancelled",
    "FAILED": "the turn failed",
    "INTERRUPTED": "the turn was interrupted",
    "LIMITED": "a limit ended the turn",
    "ROLLED_BACK": "the turn was rolled back",
}


class Transcript:
    """Prints events to a terminal. Text streams; everything else has a line of its own."""

    def __init__(
        self, console: Console, notes: Console | None = None, *, everything: bool = False, fold: bool = False
    ) -> None:
        """Text goes to `console`, all else to `notes`; without it to the same.

        `everything`: also what the session and its users did, for those who only watch. `fold`: break lines between
        words at the console's width; otherwise text is left as it is, for copying.
        """
        self._fold = fold
        self._column = 0
        self._console = console
        self._notes = notes or console
        self._everything = everything
        self._said = ""
        self._open_line = False
        self._interrupted = False
        self._waited = False

    def show(self, event: event_pb2.Event) -> None:
        """Print one event."""
        self.connected()
        kind = event.WhichOneof("payload") or ""
        show = getattr(self, f"_{kind}", None)
        if show is not None:
            show(getattr(event, kind))

    def interrupted(self, interruption: Interruption) -> None:
        """Say once that the connection is lost; the next event tells that it is back."""
        if not self._interrupted:
            self._interrupted = True
            self.line(f"⚡ connection lost, going on after event {interruption.after_sequence}", "yellow")

    def connected(self) -> None:
        """Say, if the connection was lost, that it is back."""
        if self._interrupted:
            self._interrupted = False
            self.line("↻ connected again", "green")

    def line(self, text: str, style: str = "dim") -> None:
        """Print a line of its own."""
        if self._notes is self._console:
            self.end_line()
        self._notes.print(clean(text), style=style, soft_wrap=True)

    def end_line(self) -> None:
        """End the line of streamed text, if one is open."""
        if self._open_line:
            self._console.print()
            self._open_line = False
        self._column = 0

    def _write(self, text: str, style: str | None = None) -> None:
        if not text:
            return
        if style:
            self._console.print(clean(text), style=style, end="", soft_wrap=True)
        else:
            # Not through rich, which would change tabs.
            self._console.file.write(self._folded(clean(text)) if self._fold else clean(text))
            self._console.file.flush()
        self._open_line = not text.endswith("\n")

    def _folded(self, text: str) -> str:
        """The text with a line break before each word that would pass the edge."""
        pieces = []
        for piece in re.findall(r"\n|[^\S\n]+|\S+", text):
            if self._column + len(piece) > self._console.width and not piece.isspace():
                pieces.append("\n")
                self._column = 0
            self._column = 0 if piece == "\n" else self._column + len(piece)
            pieces.append(piece)
        return "".join(pieces)

    def _text_delta(self, delta: event_pb2.TextDelta) -> None:
        self._said += delta.text
        self._write(delta.text)

    def _thinking_delta(self, delta: event_pb2.ThinkingDelta) -> None:
        self._write(delta.text, "dim italic")

    def _answer_restarted(self, restarted: event_pb2.AnswerRestarted) -> None:
        self._said = ""
        self.line("↺ the answer was cut off and is given again", "yellow")

    def _message_added(self, added: event_pb2.MessageAdded) -> None:
        from stationmaster.v1 import event_pb2

        message = added.message
        text = "".join(part.text for part in message.parts)
        if message.role == event_pb2.MESSAGE_ROLE_USER and self._everything:
            self.line(f"» {text}", "bold cyan")
        if message.role == event_pb2.MESSAGE_ROLE_ASSISTANT:
            # Deltas that were compacted before they were read are in the message.
            if not text.startswith(self._said):
                self.end_line()
                self._said = ""
            self._write(text[len(self._said) :])
            self._said = ""
            self.end_line()
            if message.interrupted:
                self.line("(cut off)", "yellow")

    def _tool_call_started(self, started: event_pb2.ToolCallStarted) -> None:
        self.line(f"⚙ {started.call.tool} {arguments(started.call.arguments)}", "cyan")

    def _tool_call_progress(self, progress: event_pb2.ToolCallProgress) -> None:
        share = f"{progress.fraction:.0%} " if progress.HasField("fraction") else ""
        self.line(f"  … {share}{progress.message}")

    def _tool_call_finished(self, finished: event_pb2.ToolCallFinished) -> None:
        took = f"{finished.duration.ToMilliseconds():,} ms"
        text = shorten(finished.result.content)
        if finished.result.is_error:
            self.line(f"  ✗ {text} ({took})", "red")
        else:
            self.line(f"  ✓ {text} ({took})", "green")

    def _mcp_message(self, message: event_pb2.McpMessage) -> None:
        grave = message.level not in ("debug", "info", "notice")
        server = message.mcp_server.removeprefix("mcpServers/")
        self.line(f"  {'!' if grave else '·'} {server}: {shorten(message.text)}", "yellow" if grave else "dim")

    def _permission_requested(self, requested: event_pb2.PermissionRequested) -> None:
        if self._everything:
            call = requested.call
            what = f"{call.tool} {arguments(call.arguments)}"
            if requested.HasField("limit"):
                what = f"{limit_line(requested.limit)}: the turn"
            self.line(f"? {what} waits for permission", "bold yellow")
            self.line(f"  answer: stationmaster permissions allow {requested.permission_request}")

    def _permission_resolved(self, resolved: event_pb2.PermissionResolved) -> None:
        from stationmaster.v1 import event_pb2

        self._waited = True
        state = plain(event_pb2.PermissionState.Name(resolved.state), "PERMISSION_STATE")
        told = f": {resolved.message}" if resolved.message else ""
        self.line(f"  permission {state}{told}")

    def _turn_queued(self, queued: event_pb2.TurnQueued) -> None:
        if queued.position:
            self.line(f"… waits for {queued.position} turn{'s' if queued.position > 1 else ''} before it")

    def _turn_started(self, started: event_pb2.TurnStarted) -> None:
        if started.attempt > 1 and not self._waited:
            self.line(f"↻ taken up again by a server (attempt {started.attempt})", "yellow")
        self._waited = False

    def _limit_reached(self, limit: event_pb2.LimitReached) -> None:
        self.line(f"■ {limit_line(limit)}", "red")

    def _session_state_changed(self, changed: event_pb2.SessionStateChanged) -> None:
        if self._everything:
            why = f" ({changed.reason})" if changed.reason else ""
            self.line(f"· {changed.from_state.lower()} → {changed.to_state.lower()}{why}")

    def _turn_finished(self, finished: event_pb2.TurnFinished) -> None:
        from stationmaster.v1 import event_pb2

        if finished.state != event_pb2.TURN_STATE_COMPLETED:
            state = event_pb2.TurnState.Name(finished.state).removeprefix("TURN_STATE_")
            why = finished.message or finished.reason
            self.line(f"■ {_ENDS.get(state, 'the turn ended')}{f': {why}' if why else ''}", "yellow")
        usage = finished.usage
        tokens = usage.input_tokens + usage.output_tokens
        parts = [f"{tokens:,} tokens" if tokens else "", dollars(usage.cost_micros)]
        if any(parts):
            self.line(" · ".join(filter(None, parts)))


def arguments(struct: Struct) -> str:
    """A call's arguments on one line."""
    return shorten(json.dumps(values(struct), ensure_ascii=False))


def limit_line(limit: event_pb2.LimitReached) -> str:
    """A limit that is reached, on one line."""
    return f"{limit.limit} is {limit.limit_value:,}; {limit.used_value:,} would be used"


def shorten(text: str) -> str:
    """The first line, cut to what fits."""
    line, *rest = text.strip().splitlines() or [""]
    return f"{line[:_LINE]} …" if rest or len(line) > _LINE else line
