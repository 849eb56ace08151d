"""A reader's place in a session's log, and the holes that it was promised an explanation for."""

from __future__ import annotations

from collections.abc import Iterable

from stationmaster.v1 import event_pb2

from stationmaster_client.errors import DataLoss

Range = tuple[int, int]


class Cursor:
    """Lets every sequence through once. Compacted deltas leave holes; a later message names them in `replaces`."""

    def __init__(self, after: int) -> None:
        self.last = after
        self._holes: list[Range] = []
        self._read_twice = -1
        self.suspicious = False
        """Something is missing that nothing explains yet: read again after `last` to be sure."""

    def take(self, events: Iterable[event_pb2.Event]) -> list[event_pb2.Event]:
        """Return the events that are new, up to a hole that is to be read again.

        Raises DataLoss when a turn ends and a hole before it was never explained.
        """
        self.suspicious = False
        pending = [event for event in events if event.sequence > self.last]
        fresh: list[event_pb2.Event] = []
        for index, event in enumerate(pending):
            if event.sequence <= self.last:
                continue
            if event.sequence > self.last + 1 and not self._jump(event.sequence, pending[index:]):
                return fresh
            self.last = event.sequence
            self._explain(event)
            fresh.append(event)
        return fresh

    def _jump(self, sequence: int, following: list[event_pb2.Event]) -> bool:
        """Note a hole before `sequence`. False: it is seen for the first time and nothing at hand explains it."""
        hole = (self.last + 1, sequence - 1)
        left = [hole]
        for event in following:
            left = _subtract(left, _replaced(event))
        if left and self._read_twice != self.last:
            self._read_twice = self.last
            self.suspicious = True
            return False
        self._holes.append(hole)
        return True

    def _explain(self, event: event_pb2.Event) -> None:
        if not self._holes:
            return
        self._holes = _subtract(self._holes, _replaced(event))
        if not event.HasField("turn_finished"):
            return
        if event.turn_finished.state == event_pb2.TURN_STATE_ROLLED_BACK:
            self._holes.clear()
        if self._holes:
            missing = ", ".join(f"{first} to {last}" for first, last in self._holes)
            raise DataLoss(f"the session's log misses the events {missing}, and no message replaces them")


def _replaced(event: event_pb2.Event) -> Range | None:
    """The sequences that an event stands for."""
    if event.HasField("message_added") and event.message_added.message.HasField("replaces"):
        replaces = event.message_added.message.replaces
    elif event.HasField("answer_restarted"):
        replaces = event.answer_restarted.replaces
    else:
        return None
    return replaces.first_sequence, replaces.last_sequence


def _subtract(holes: list[Range], covered: Range | None) -> list[Range]:
    """What is left of the holes."""
    if covered is None:
        return holes
    first, last = covered
    left = []
    for start, end in holes:
        if end < first or start > last:
            left.append((start, end))
            continue
        if start < first:
            left.append((start, first - 1))
        if end > last:
            left.append((last + 1, end))
    return left
