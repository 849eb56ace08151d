"""The methods of SessionService: message in, call the service, message out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from grpc.aio import ServicerContext
from stationmaster.v1 import session_pb2 as pb
from stationmaster.v1.session_pb2_grpc import SessionServiceServicer

from stationmaster_server.db.caller import Caller
from stationmaster_server.errors import NotFound, StationmasterError
from stationmaster_server.sessions import convert
from stationmaster_server.sessions.convert_events import events_to_proto, message_to_proto, parts_of
from stationmaster_server.sessions.permissions import Permissions
from stationmaster_server.sessions.searching import MessageSearch
from stationmaster_server.sessions.service import SessionService
from stationmaster_server.sessions.turns import Turns
from stationmaster_server.sessions.watching import Watching
from stationmaster_server.wire.caller import current_caller
from stationmaster_server.wire.fields import request_key
from stationmaster_server.wire.names import parse, parse_pair
from stationmaster_server.wire.paging import PageTokens
from stationmaster_server.wire.search import mode_of

Context = ServicerContext[Any, Any]

SESSION = "sessions/{session}"
TURN = "sessions/{session}/turns/{turn}"
MESSAGE = "sessions/{session}/messages/{message}"
PERMISSION = "sessions/{session}/permissionRequests/{request}"

logger = logging.getLogger(__name__)


class SessionServicer(SessionServiceServicer):
    """Sessions over gRPC."""

    def __init__(
        self,
        sessions: SessionService,
        watching: Watching,
        turns: Turns,
        permissions: Permissions,
        search: MessageSearch,
        tokens: PageTokens,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`stopping`: whether this server ends its streams; gRPC does not tell that from a caller that goes away."""
        self._sessions = sessions
        self._watching = watching
        self._turns = turns
        self._permissions = permissions
        self._search = search
        self._tokens = tokens
        self._stopping = stopping
        self._cancels: set[asyncio.Task[None]] = set()

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.Session:
        """Create a session."""
        new = convert.new_session_from_proto(request.session)
        return convert.session_to_proto(await self._sessions.create(_changing(request), new))

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.Session:
        """Return a session."""
        return convert.session_to_proto(await self._sessions.get(current_caller(), parse(SESSION, request.name)))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        """List sessions."""
        page = await self._sessions.list(
            current_caller(),
            request.filter,
            request.order_by,
            self._tokens.read(request),
            archived=request.show_archived,
        )
        sessions, token = self._tokens.page(request, page, convert.session_to_proto)
        return pb.ListSessionsResponse(sessions=sessions, next_page_token=token)

    async def UpdateSession(self, request: pb.UpdateSessionRequest, context: Context) -> pb.Session:
        """Change a session."""
        session_id = parse(SESSION, request.session.name, field="session.name")
        changes = convert.changes_from_proto(request)
        session = await self._sessions.update(_changing(request), session_id, changes, request.session.etag)
        return convert.session_to_proto(session)

    async def PauseSession(self, request: pb.PauseSessionRequest, context: Context) -> pb.Session:
        """Pause a session."""
        session_id = parse(SESSION, request.name)
        return convert.session_to_proto(await self._sessions.pause(_changing(request), session_id, request.reason))

    async def ResumeSession(self, request: pb.ResumeSessionRequest, context: Context) -> pb.Session:
        """Resume a session, or fork it."""
        session_id = parse(SESSION, request.name)
        change = self._sessions.fork if request.fork else self._sessions.resume
        return convert.session_to_proto(await change(_changing(request), session_id))

    async def ForkSession(self, request: pb.ForkSessionRequest, context: Context) -> pb.Session:
        """Fork a session."""
        session_id = parse(SESSION, request.name)
        up_to = _message_number(request, session_id) if request.up_to_message else None
        session = await self._sessions.fork(
            _changing(request), session_id, up_to=up_to, display_name=request.display_name
        )
        return convert.session_to_proto(session)

    async def TerminateSession(self, request: pb.TerminateSessionRequest, context: Context) -> pb.Session:
        """End a session."""
        session_id = parse(SESSION, request.name)
        session = await self._sessions.terminate(_changing(request), session_id, request.reason)
        return convert.session_to_proto(session)

    async def ArchiveSession(self, request: pb.ArchiveSessionRequest, context: Context) -> pb.Session:
        """Put a session away."""
        session_id = parse(SESSION, request.name)
        return convert.session_to_proto(await self._sessions.archive(_changing(request), session_id))

    async def SendMessage(
        self, request: pb.SendMessageRequest, context: Context
    ) -> AsyncGenerator[pb.SendMessageResponse, None]:
        """Start a turn and stream its events."""
        caller = _changing(request)
        session_id = parse(SESSION, request.session, field="session")
        started = await self._turns.send(caller, session_id, convert.send_from_proto(request))
        turn = f"{request.session}/turns/{started.turn_id}"
        batches = self._watching.follow(caller, session_id, started, stop_at_permission=request.stop_at_permission)
        try:
            async with aclosing(batches):
                async for batch in batches:
                    for some, last in parts_of(events_to_proto(batch.events), batch.last_sequence):
                        yield pb.SendMessageResponse(events=some, last_sequence=last, turn=turn)
                        turn = ""
        except (asyncio.CancelledError, GeneratorExit):
            if request.on_disconnect == pb.ON_DISCONNECT_CANCEL and not self._stopping():
                self._cancel_later(caller, session_id, started.turn_id)
            raise

    async def WatchSession(
        self, request: pb.WatchSessionRequest, context: Context
    ) -> AsyncGenerator[pb.WatchSessionResponse, None]:
        """Stream a session's events."""
        batches = self._watching.watch(current_caller(), parse(SESSION, request.name), request.after_sequence)
        async with aclosing(batches):
            async for batch in batches:
                for some, last in parts_of(events_to_proto(batch.events), batch.last_sequence):
                    yield pb.WatchSessionResponse(events=some, last_sequence=last)

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        """List messages."""
        session_id = parse(SESSION, request.parent, field="parent")
        page = await self._sessions.list_messages(
            current_caller(), session_id, request.filter, request.order_by, self._tokens.read(request)
        )
        messages, token = self._tokens.page(request, page, message_to_proto)
        return pb.ListMessagesResponse(messages=messages, next_page_token=token)

    async def SearchMessages(self, request: pb.SearchMessagesRequest, context: Context) -> pb.SearchMessagesResponse:
        """Search messages."""
        session_id = parse(SESSION, request.parent, field="parent") if request.parent else None
        mode, wanted = mode_of(request.mode), self._tokens.read(request)
        page = await self._search.search(current_caller(), session_id, request.query, mode, wanted)
        hits, token = self._tokens.page(request, page, convert.hit_to_proto)
        return pb.SearchMessagesResponse(hits=hits, next_page_token=token)

    async def GetTurn(self, request: pb.GetTurnRequest, context: Context) -> pb.Turn:
        """Return a turn."""
        session_id, turn_id = parse_pair(TURN, request.name, UUID, UUID)
        return convert.turn_to_proto(await self._turns.get_turn(current_caller(), session_id, turn_id))

    async def ListTurns(self, request: pb.ListTurnsRequest, context: Context) -> pb.ListTurnsResponse:
        """List turns."""
        session_id = parse(SESSION, request.parent, field="parent")
        page = await self._turns.list_turns(
            current_caller(), session_id, request.filter, request.order_by, self._tokens.read(request)
        )
        turns, token = self._tokens.page(request, page, convert.turn_to_proto)
        return pb.ListTurnsResponse(turns=turns, next_page_token=token)

    async def CancelTurn(self, request: pb.CancelTurnRequest, context: Context) -> pb.Turn:
        """Cancel a turn."""
        session_id, turn_id = parse_pair(TURN, request.name, UUID, UUID)
        return convert.turn_to_proto(await self._turns.cancel(_changing(request), session_id, turn_id))

    async def ListPermissionRequests(
        self, request: pb.ListPermissionRequestsRequest, context: Context
    ) -> pb.ListPermissionRequestsResponse:
        """List permission requests."""
        session_id = None if request.parent == "sessions/-" else parse(SESSION, request.parent, field="parent")
        page = await self._permissions.list_requests(
            current_caller(), session_id, request.filter, request.order_by, self._tokens.read(request)
        )
        permission_requests, token = self._tokens.page(request, page, convert.permission_to_proto)
        return pb.ListPermissionRequestsResponse(permission_requests=permission_requests, next_page_token=token)

    async def ResolvePermissionRequest(
        self, request: pb.ResolvePermissionRequestRequest, context: Context
    ) -> pb.PermissionRequest:
        """Answer a permission request."""
        session_id, request_id = parse_pair(PERMISSION, request.name, UUID, UUID)
        answer = convert.answer_from_proto(request)
        resolved = await self._permissions.resolve(_changing(request), session_id, request_id, answer)
        return convert.permission_to_proto(resolved)

    def _cancel_later(self, caller: Caller, session_id: UUID, turn_id: UUID) -> None:
        """Cancel a turn whose caller went away, in a task of its own: the call's is being cancelled itself."""
        task = asyncio.create_task(self._cancel(replace(caller, request_key=None), session_id, turn_id))
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def _cancel(self, caller: Caller, session_id: UUID, turn_id: UUID) -> None:
        try:
            await self._turns.cancel(caller, session_id, turn_id)
        except StationmasterError as error:
            logger.info("turn %s was not cancelled after its caller went away: %s", turn_id, error)


def _changing(request: Message) -> Caller:
    """The caller, with the request id of a call that changes something."""
    caller = current_caller()
    return replace(caller, request_key=request_key(request, caller.method))


def _message_number(request: pb.ForkSessionRequest, session_id: UUID) -> int:
    of, number = parse_pair(MESSAGE, request.up_to_message, UUID, int, field="up_to_message")
    if of != session_id:
        raise NotFound("message", request.up_to_message)  # as for one that is somebody else's
    return number
