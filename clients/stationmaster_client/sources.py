"""What the resuming streams read: a session's log, one turn of it, an execution's events, the audit trail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from grpc import aio
from stationmaster.v1 import audit_pb2, event_pb2, session_pb2, task_pb2

from stationmaster_client.cursor import Cursor
from stationmaster_client.errors import DataLoss, StationmasterError, Unavailable
from stationmaster_client.stream import EventStream, Interruption

Call = aio.UnaryStreamCall[Any, Any]


class SessionSource:
    """A session's log after a sequence, for as long as the session lives."""

    def __init__(self, session: str, after: int, watch: Callable[[session_pb2.WatchSessionRequest], Call]) -> None:
        self.session = session
        self.finished = False
        self._cursor = Cursor(after)
        self._watch = watch

    @property
    def last_sequence(self) -> int:
        return self._cursor.last

    def open(self) -> Call:
        return self._watch(session_pb2.WatchSessionRequest(name=self.session, after_sequence=self.last_sequence))

    def take(self, batch: session_pb2.WatchSessionResponse) -> Sequence[event_pb2.Event]:
        return self._cursor.take(batch.events)

    def must_reopen(self) -> bool:
        return self._cursor.suspicious

    def end(self) -> StationmasterError | None:
        """The server ends the stream of a session that has ended."""
        self.finished = True
        return None


class TurnSource:
    """One turn, from the message that starts it to its end.

    While nothing of it was received the message is sent again, under its request id; after that the session is watched.
    """

    def __init__(
        self,
        request: session_pb2.SendMessageRequest,
        send: Callable[[session_pb2.SendMessageRequest], Call],
        watch: Callable[[session_pb2.WatchSessionRequest], Call],
    ) -> None:
        self.request = request
        self.turn = ""
        self.last_sequence = 0
        self.finished = False
        self._send = send
        self._watch = watch

    def open(self) -> Call:
        if not self.last_sequence:
            return self._send(self.request)
        request = session_pb2.WatchSessionRequest(name=self.request.session, after_sequence=self.last_sequence)
        return self._watch(request)

    def take(
        self, batch: session_pb2.SendMessageResponse | session_pb2.WatchSessionResponse
    ) -> Sequence[event_pb2.Event]:
        if isinstance(batch, session_pb2.SendMessageResponse) and batch.turn:
            self.turn = batch.turn
        fresh = []
        for event in batch.events:
            if event.sequence <= self.last_sequence or self.finished:
                continue
            self.last_sequence = event.sequence
            self.turn = self.turn or event.turn
            if event.turn == self.turn:
                fresh.append(event)
                self.finished = self._is_last(event)
        return fresh

    def _is_last(self, event: event_pb2.Event) -> bool:
        asked = self.request.stop_at_permission and event.HasField("permission_requested")
        return asked or event.HasField("turn_finished")

    def must_reopen(self) -> bool:
        return False

    def end(self) -> StationmasterError | None:
        return None if self.finished else Unavailable("the stream ended before the turn did")


class TurnStream(EventStream[event_pb2.Event]):
    """The events of one turn."""

    def __init__(
        self,
        source: TurnSource,
        *,
        patience: timedelta | None = None,
        on_interruption: Callable[[Interruption], None] | None = None,
    ) -> None:
        super().__init__(source, patience=patience, on_interruption=on_interruption)
        self._turn_source = source

    @property
    def turn(self) -> str:
        """`sessions/…/turns/…`; empty until the server has answered."""
        return self._turn_source.turn


class ExecutionSource:
    """An execution's events after a sequence, to its end. Their sequences have no holes."""

    def __init__(self, execution: str, after: int, watch: Callable[[task_pb2.WatchExecutionRequest], Call]) -> None:
        self.execution = execution
        self.last_sequence = after
        self.finished = False
        self._watch = watch
        self._hole_after = -1
        self._suspicious = False

    def open(self) -> Call:
        return self._watch(task_pb2.WatchExecutionRequest(name=self.execution, after_sequence=self.last_sequence))

    def take(self, batch: task_pb2.WatchExecutionResponse) -> Sequence[event_pb2.Event]:
        """Raises DataLoss at a hole that is still there when it was read again."""
        self._suspicious = False
        fresh: list[event_pb2.Event] = []
        for event in batch.events:
            if event.sequence <= self.last_sequence:
                continue
            if event.sequence > self.last_sequence + 1:
                self._miss(event.sequence)
                break
            self.last_sequence = event.sequence
            fresh.append(event)
        return fresh

    def _miss(self, sequence: int) -> None:
        if self._hole_after == self.last_sequence:
            missing = f"{self.last_sequence + 1} to {sequence - 1}"
            raise DataLoss(f"the events {missing} of {self.execution} are missing")
        self._hole_after = self.last_sequence
        self._suspicious = True

    def must_reopen(self) -> bool:
        return self._suspicious

    def end(self) -> StationmasterError | None:
        """The server ends the stream of an execution that has ended."""
        self.finished = True
        return None


class AuditSource:
    """The audit trail after a sequence; with a filter its sequences have holes."""

    def __init__(
        self,
        request: audit_pb2.WatchAuditEventsRequest,
        watch: Callable[[audit_pb2.WatchAuditEventsRequest], Call],
    ) -> None:
        self.last_sequence = request.after_sequence
        self.finished = False
        self._request = request
        self._started = False
        self._watch = watch

    def open(self) -> Call:
        request = audit_pb2.WatchAuditEventsRequest()
        request.CopyFrom(self._request)
        if self._started:
            request.only_new = False
            request.after_sequence = self.last_sequence
        return self._watch(request)

    def take(self, batch: audit_pb2.WatchAuditEventsResponse) -> Sequence[audit_pb2.AuditEvent]:
        fresh = [event for event in batch.audit_events if event.sequence > self.last_sequence]
        self._started = True
        self.last_sequence = max(self.last_sequence, batch.last_sequence, *(event.sequence for event in fresh), 0)
        return fresh

    def must_reopen(self) -> bool:
        return False

    def end(self) -> StationmasterError | None:
        return Unavailable("the audit stream ended, which it never does by itself")
