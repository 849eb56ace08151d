"""Sessions: conversations, their messages, turns and events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Unpack

from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import agent_pb2, event_pb2, search_pb2, session_pb2, session_pb2_grpc

from stationmaster_client.calls import Calls, fill_request_id
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query
from stationmaster_client.sources import SessionSource, TurnSource, TurnStream
from stationmaster_client.stream import EventStream, Interruption
from stationmaster_client.times import to_duration

OnInterruption = Callable[[Interruption], None] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a turn came to."""

    turn: str
    state: event_pb2.TurnState.ValueType
    text: str
    """The text of the last message of the model."""
    reason: str
    usage: event_pb2.Usage
    last_sequence: int


class Sessions:
    """`sessions/…`. Every method takes the name or the bare id, and raises `StationmasterError`s."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = session_pb2_grpc.SessionServiceStub(calls.channel)

    async def create(
        self,
        agent: str = "",
        *,
        model: str = "",
        tools: Iterable[str] = (),
        spec: agent_pb2.AgentSpec | None = None,
        display_name: str = "",
        labels: Mapping[str, str] | None = None,
        limits: agent_pb2.Limits | None = None,
        tool_policies: Iterable[agent_pb2.ToolPolicy] = (),
        idle_timeout: timedelta | None = None,
        request_id: str = "",
    ) -> session_pb2.Session:
        """Create a session of an agent, of a specification, or of a model with `tools` (names or patterns)."""
        if model and spec is None:
            spec = agent_pb2.AgentSpec(model=model, tools=tools)
        session = session_pb2.Session(
            agent=full("agents", agent) if agent else "",
            spec=spec,
            display_name=display_name,
            labels=labels,
            limits=limits,
            tool_policies=tool_policies,
            idle_timeout=to_duration(idle_timeout),
        )
        request = session_pb2.CreateSessionRequest(session=session, request_id=request_id)
        return await self._calls.unary(self._stub.CreateSession, request)

    async def get(self, name: str) -> session_pb2.Session:
        """Return one session."""
        request = session_pb2.GetSessionRequest(name=full("sessions", name))
        return await self._calls.unary(self._stub.GetSession, request)

    def list(
        self, *, show_archived: bool = False, **query: Unpack[Query]
    ) -> Listing[session_pb2.Session, session_pb2.ListSessionsResponse]:
        """List sessions; `async for session in sessions.list(filter="state = ACTIVE")`."""

        async def fetch(token: str) -> session_pb2.ListSessionsResponse:
            request = session_pb2.ListSessionsRequest(page_token=token, show_archived=show_archived, **query)
            return await self._calls.unary(self._stub.ListSessions, request)

        return Listing(fetch, lambda page: page.sessions)

    async def update(self, session: session_pb2.Session, paths: Iterable[str] = ()) -> session_pb2.Session:
        """Change the fields named by `paths`, or all that are set. With its `etag` a stale session is refused."""
        mask = FieldMask(paths=paths)
        request = session_pb2.UpdateSessionRequest(session=session, update_mask=mask if mask.paths else None)
        return await self._calls.unary(self._stub.UpdateSession, request)

    async def pause(self, name: str, reason: str = "") -> session_pb2.Session:
        """Pause a session: it takes no message until it is resumed."""
        request = session_pb2.PauseSessionRequest(name=full("sessions", name), reason=reason)
        return await self._calls.unary(self._stub.PauseSession, request)

    async def resume(self, name: str, *, fork: bool = False) -> session_pb2.Session:
        """Resume a paused session, or with `fork` make a new one from it."""
        request = session_pb2.ResumeSessionRequest(name=full("sessions", name), fork=fork)
        return await self._calls.unary(self._stub.ResumeSession, request)

    async def fork(self, name: str, *, up_to_message: str = "", display_name: str = "") -> session_pb2.Session:
        """Make a new session from a session's messages, all or up to one."""
        request = session_pb2.ForkSessionRequest(
            name=full("sessions", name), up_to_message=up_to_message, display_name=display_name
        )
        return await self._calls.unary(self._stub.ForkSession, request)

    async def terminate(self, name: str, reason: str = "") -> session_pb2.Session:
        """End a session for good."""
        request = session_pb2.TerminateSessionRequest(name=full("sessions", name), reason=reason)
        return await self._calls.unary(self._stub.TerminateSession, request)

    async def archive(self, name: str) -> session_pb2.Session:
        """Put a terminated session away."""
        request = session_pb2.ArchiveSessionRequest(name=full("sessions", name))
        return await self._calls.unary(self._stub.ArchiveSession, request)

    def watch(
        self,
        name: str,
        after: int = 0,
        *,
        patience: timedelta | None = None,
        on_interruption: OnInterruption = None,
    ) -> EventStream[event_pb2.Event]:
        """Every event after a sequence, in order, each once, until the session is terminated.

        Goes on by itself over broken connections and restarts, for ever or as long as `patience` lasts. Raises DataLoss
        when sequences are missing that no message replaces.
        """
        source = SessionSource(
            full("sessions", name), after, lambda request: self._calls.stream(self._stub.WatchSession, request)
        )
        return EventStream(source, patience=patience, on_interruption=on_interruption)

    def send(
        self,
        name: str,
        text: str,
        *,
        busy_policy: session_pb2.BusyPolicy.ValueType = session_pb2.BUSY_POLICY_UNSPECIFIED,
        on_disconnect: session_pb2.OnDisconnect.ValueType = session_pb2.ON_DISCONNECT_UNSPECIFIED,
        recovery_policy: session_pb2.RecoveryPolicy.ValueType = session_pb2.RECOVERY_POLICY_UNSPECIFIED,
        stop_at_permission: bool = False,
        request_id: str = "",
        patience: timedelta | None = None,
        on_interruption: OnInterruption = None,
    ) -> TurnStream:
        """Send a message; the stream gives the events of its turn, up to TurnFinished.

        A stream that breaks goes on where it was. Leaving it does not cancel the turn, unless `on_disconnect` says so.
        """
        request = session_pb2.SendMessageRequest(
            session=full("sessions", name),
            text=text,
            busy_policy=busy_policy,
            on_disconnect=on_disconnect,
            recovery_policy=recovery_policy,
            stop_at_permission=stop_at_permission,
            request_id=request_id,
        )
        fill_request_id(request)
        source = TurnSource(
            request,
            lambda first: self._calls.stream(self._stub.SendMessage, first),
            lambda rest: self._calls.stream(self._stub.WatchSession, rest),
        )
        return TurnStream(source, patience=patience, on_interruption=on_interruption)

    async def ask(self, name: str, text: str) -> Reply:
        """Send a message and wait for the end of its turn. A permission it asks for is somebody else's to give."""
        answer = ""
        async with self.send(name, text) as events:
            async for event in events:
                if event.HasField("message_added"):
                    message = event.message_added.message
                    if message.role == event_pb2.MESSAGE_ROLE_ASSISTANT:
                        answer = "".join(part.text for part in message.parts)
                elif event.HasField("turn_finished"):
                    end = event.turn_finished
                    return Reply(event.turn, end.state, answer, end.reason, end.usage, event.sequence)
        raise AssertionError("a turn's stream ends with TurnFinished")

    def messages(
        self, name: str, **query: Unpack[Query]
    ) -> Listing[event_pb2.Message, session_pb2.ListMessagesResponse]:
        """List a session's messages, oldest first."""

        async def fetch(token: str) -> session_pb2.ListMessagesResponse:
            request = session_pb2.ListMessagesRequest(parent=full("sessions", name), page_token=token, **query)
            return await self._calls.unary(self._stub.ListMessages, request)

        return Listing(fetch, lambda page: page.messages)

    def search(
        self,
        query: str,
        *,
        session: str = "",
        mode: search_pb2.SearchMode.ValueType = search_pb2.SEARCH_MODE_TEXT,
        page_size: int = 0,
    ) -> Listing[session_pb2.SearchMessagesResponse.Hit, session_pb2.SearchMessagesResponse]:
        """Search messages by words or by meaning, best match first: of one session or of all."""
        parent = full("sessions", session) if session else ""

        async def fetch(token: str) -> session_pb2.SearchMessagesResponse:
            request = session_pb2.SearchMessagesRequest(
                parent=parent, query=query, mode=mode, page_size=page_size, page_token=token
            )
            return await self._calls.unary(self._stub.SearchMessages, request)

        return Listing(fetch, lambda page: page.hits)

    async def turn(self, name: str) -> session_pb2.Turn:
        """Return one turn: `sessions/…/turns/…`."""
        return await self._calls.unary(self._stub.GetTurn, session_pb2.GetTurnRequest(name=name))

    def turns(self, name: str, **query: Unpack[Query]) -> Listing[session_pb2.Turn, session_pb2.ListTurnsResponse]:
        """List a session's turns, newest first."""

        async def fetch(token: str) -> session_pb2.ListTurnsResponse:
            request = session_pb2.ListTurnsRequest(parent=full("sessions", name), page_token=token, **query)
            return await self._calls.unary(self._stub.ListTurns, request)

        return Listing(fetch, lambda page: page.turns)

    async def cancel(self, turn: str) -> session_pb2.Turn:
        """Cancel a turn: `sessions/…/turns/…`. What it produced so far is kept."""
        return await self._calls.unary(self._stub.CancelTurn, session_pb2.CancelTurnRequest(name=turn))
