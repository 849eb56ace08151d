"""What of an execution's stream its report needs, however long the stream is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from stationmaster_server.events.model import Event

CHANGES, LINES = 1_000, 1_000
"""At most so many changes of state and log lines: the first and the last."""


@dataclass(slots=True)
class _Ends:
    """The first and the last `limit` / 2 of what was added."""

    limit: int
    first: list[Event] = field(default_factory=list)
    last: deque[Event] = field(default_factory=deque)
    left_out: int = 0

    def add(self, event: Event) -> None:
        if len(self.first) < self.limit // 2:
            self.first.append(event)
            return
        self.last.append(event)
        if len(self.last) > self.limit // 2:
            self.last.popleft()
            self.left_out += 1


class Gathered:
    """Changes of state, the newest progress, and log lines, of a stream that is read from its begin to its end."""

    def __init__(self) -> None:
        self._changes, self._lines = _Ends(CHANGES), _Ends(LINES)
        self._progress: list[Event] = []

    def add(self, events: Iterable[Event]) -> None:
        """The next ones of the stream."""
        for event in events:
            match event.kind:
                case "execution_state_changed":
                    self._changes.add(event)
                case "execution_log":
                    self._lines.add(event)
                case "execution_progress":
                    self._progress = [event]

    @property
    def events(self) -> list[Event]:
        """What is kept, in its order."""
        ends = (self._changes, self._lines)
        found = [*self._progress, *(event for one in ends for event in (*one.first, *one.last))]
        return sorted(found, key=lambda event: event.sequence)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out."""
        parts = ((self._changes, "changes of state"), (self._lines, "log lines"))
        return tuple(
            f"{ends.left_out:,} {what} are left out of this report, between the first {ends.limit // 2} and the last."
            for ends, what in parts
            if ends.left_out
        )
