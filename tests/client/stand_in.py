"""A server whose methods a test writes itself: for what a real server cannot be made to do on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from grpc import aio
from stationmaster.v1 import event_pb2, session_pb2

SERVICE = session_pb2.DESCRIPTOR.services_by_name["SessionService"]
SESSION = "sessions/01890000-0000-7000-8000-000000000001"
TURN = f"{SESSION}/turns/01890000-0000-7000-8000-000000000002"


@asynccontextmanager
async def serving(port: int = 0, **methods: Callable[..., Any]) -> AsyncIterator[str]:
    """Serve the named methods of SessionService and give the target. Unless told so nothing waits for an answer."""
    methods.setdefault("ListPermissionRequests", nothing_waits)
    server = aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers(methods)),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(None)


async def nothing_waits(
    request: session_pb2.ListPermissionRequestsRequest, context: Any
) -> session_pb2.ListPermissionRequestsResponse:
    """No turn waits for an answer."""
    return session_pb2.ListPermissionRequestsResponse()


def handlers(methods: dict[str, Callable[..., Any]]) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Wrap plain functions as the contract declares the methods."""
    wrapped = {}
    for name, function in methods.items():
        method = SERVICE.methods_by_name[name]
        wrap = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        wrapped[name] = wrap(
            function,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return wrapped


def delta(sequence: int, turn: str = TURN) -> event_pb2.Event:
    """A piece of text."""
    return event_pb2.Event(sequence=sequence, turn=turn, text_delta=event_pb2.TextDelta(text=f"{sequence} ", step=1))


def message(sequence: int, first: int, last: int) -> event_pb2.Event:
    """A message that stands for a range of deltas."""
    replaces = event_pb2.SequenceRange(first_sequence=first, last_sequence=last)
    added = event_pb2.MessageAdded(message=event_pb2.Message(replaces=replaces))
    return event_pb2.Event(sequence=sequence, turn=TURN, message_added=added)


def finished(sequence: int, turn: str = TURN) -> event_pb2.Event:
    """The end of a turn."""
    end = event_pb2.TurnFinished(state=event_pb2.TURN_STATE_COMPLETED)
    return event_pb2.Event(sequence=sequence, turn=turn, turn_finished=end)


def watched(*events: event_pb2.Event) -> session_pb2.WatchSessionResponse:
    """A batch of WatchSession."""
    return session_pb2.WatchSessionResponse(events=events)


def sent(*events: event_pb2.Event, turn: str = "") -> session_pb2.SendMessageResponse:
    """A batch of SendMessage."""
    return session_pb2.SendMessageResponse(events=events, turn=turn)


async def unavailable(context: aio.ServicerContext[Any, Any]) -> None:
    """Break off, as a server does that stops."""
    await context.abort(grpc.StatusCode.UNAVAILABLE, "stopping")
