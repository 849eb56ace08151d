"""Puts the interceptors around a servicer's methods, once per method, for all four kinds of call."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason, StationmasterError
from stationmaster_server.rpc.call import Call, Context
from stationmaster_server.rpc.errors import DETAILS_KEY, MessageTooLarge, Status, UnknownMethod, to_status
from stationmaster_server.rpc.interceptors import errors
from stationmaster_server.rpc.interceptors.base import After, Before, Each, Failed, Interceptor
from stationmaster_server.rpc.interceptors.request_id import KEY, RequestIds
from stationmaster_server.rpc.method import Handler, Method
from stationmaster_server.rpc.open_streams import OpenStreams
from stationmaster_server.wire.caller import calling, until

Parse = Callable[[bytes], Any]

_MAKE: Mapping[tuple[str, str], Callable[..., Handler]] = {
    ("unary", "unary"): grpc.unary_unary_rpc_method_handler,
    ("unary", "stream"): grpc.unary_stream_rpc_method_handler,
    ("stream", "unary"): grpc.stream_unary_rpc_method_handler,
    ("stream", "stream"): grpc.stream_stream_rpc_method_handler,
}


class Chain:
    """The interceptors in their order; `wrap` makes a handler that runs a call through them.

    The handler takes raw bytes and reads the message itself, so that nothing of a request is looked at before its
    caller may call the method, and so that bytes that are no message get a clear answer.
    """

    def __init__(self, ids: RequestIds, interceptors: Sequence[Interceptor], *, max_message_bytes: int) -> None:
        self._ids = ids
        self._interceptors = (ids, *interceptors)
        self._max_message_bytes = max_message_bytes
        self._streams = OpenStreams()

    def wrap(self, method: Method, handler: Handler) -> Handler:
        """Return the handler to register in place of `handler`."""
        parse = handler.request_deserializer or method.request_type.FromString
        run = _Run(method, self._interceptors, parse, self._max_message_bytes)
        kind = ("stream" if method.request_streaming else "unary", "stream" if method.response_streaming else "unary")
        behaviour = getattr(handler, "_".join(kind))
        if method.response_streaming:
            return _MAKE[kind](_answer_many(run, behaviour, self._streams), None, handler.response_serializer)
        streams = self._streams if method.request_streaming else None
        return _MAKE[kind](_answer_once(run, behaviour, streams), None, handler.response_serializer)

    def unknown_methods(self) -> grpc.GenericRpcHandler:
        """Return the handler of whatever no service serves."""
        return _UnknownMethods(self._ids)

    def callers_changed(self, payload: str | None) -> None:
        """End the streams of the user or key that a notification is about, should it no longer be let in."""
        self._streams.changed(payload)

    def end_streams(self) -> None:
        """End every stream with UNAVAILABLE: the server stops."""
        self._streams.end()


class _Run:
    """What the interceptors do for one method, as flat tuples of functions."""

    def __init__(self, method: Method, interceptors: Sequence[Interceptor], parse: Parse, max_bytes: int) -> None:
        self.method = method
        steps = [(before, i.after(method)) for i in interceptors if (before := i.before(method))]
        self._before: tuple[Before, ...] = tuple(before for before, _ in steps)
        self._after: tuple[After | None, ...] = tuple(after for _, after in steps)
        self._each: tuple[Each, ...] = tuple(each for i in interceptors if (each := i.each(method)))
        self._failed: tuple[Failed, ...] = tuple(failed for i in interceptors if (failed := i.failed(method)))
        self._parse = parse
        self._max_bytes = max_bytes
        self.read: Callable[[Any], Any] = self._read_each if method.request_streaming else self._read_one

    async def enter(self, call: Call) -> None:
        """Run every step before the request is read."""
        for step in self._before:
            call.entered += 1
            waiting = step(call)
            if waiting is not None:
                await waiting

    def leave(self, call: Call) -> None:
        """Undo, in reverse order, every step that began."""
        for step in reversed(self._after[: call.entered]):
            if step is not None:
                step(call)

    async def fail(self, call: Call, error: Exception) -> Exception:
        """Tell every step that asked for it of a refusal; return what the call is to be answered with."""
        if not isinstance(error, StationmasterError):
            return error
        try:
            for step in self._failed:
                waiting = step(call, error)
                if waiting is not None:
                    await waiting
        except StationmasterError as instead:
            return instead
        return error

    def _read_one(self, raw: bytes) -> Message:
        if len(raw) > self._max_bytes:
            raise MessageTooLarge(len(raw), self._max_bytes)
        try:
            request: Message = self._parse(raw)
        except DecodeError:
            name = self.method.request_type.DESCRIPTOR.full_name
            raise InvalidArgument(
                Reason.INVALID_FIELD,
                f"the bytes sent are no {name}; was the client built from another version of the protos?",
                FieldViolation("request", "cannot be decoded"),
            ) from None
        for step in self._each:
            step(request)
        return request

    async def _read_each(self, raws: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        async for raw in raws:
            yield self._read_one(raw)


def _answer_once(
    run: _Run, behaviour: Callable[[Any, Context], Awaitable[Any]], streams: OpenStreams | None
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def answer_once(raw: Any, context: Context) -> Any:
        call, changes = Call(run.method, context), 0 if streams is None else streams.changes
        try:
            await run.enter(call)
            request = run.read(raw)
            if call.caller is None:  # an open method: nobody asks who calls
                return await behaviour(request, context)
            with calling(call.caller), until(call.deadline):
                if streams is None:
                    return await behaviour(request, context)
                return await streams.run(behaviour(request, context), call, changes)
        except Exception as error:  # noqa: BLE001 - the edge: nothing may leave untranslated
            await _abort(call, await run.fail(call, error))
        except asyncio.CancelledError:
            errors.gave_up(call)
            raise  # a swallowed cancellation leaks native memory (grpc/grpc#43360)
        finally:
            run.leave(call)

    return answer_once


def _answer_many(
    run: _Run, behaviour: Callable[[Any, Context], Any], streams: OpenStreams
) -> Callable[[Any, Context], Awaitable[None]]:
    async def answer_many(raw: Any, context: Context) -> None:
        call, changes = Call(run.method, context), streams.changes
        try:
            await run.enter(call)
            work = _send(behaviour(run.read(raw), context), context)
            with until(call.deadline), nullcontext() if call.caller is None else calling(call.caller):
                await streams.run(work, call, changes)
        except Exception as error:  # noqa: BLE001 - the edge: nothing may leave untranslated
            await _abort(call, await run.fail(call, error))
        except asyncio.CancelledError:
            errors.gave_up(call)
            raise  # a swallowed cancellation leaks native memory (grpc/grpc#43360)
        finally:
            run.leave(call)

    return answer_many


async def _send(answers: Any, context: Context) -> None:
    """Send what a servicer yields, and end its generator here and now rather than when it is collected."""
    if inspect.isawaitable(answers):  # a servicer that calls context.write by itself
        await answers
        return
    async with aclosing(answers):
        async for answer in answers:
            await context.write(answer)


async def _abort(call: Call, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):  # the servicer ended the call itself
        call.code = grpc.StatusCode.UNKNOWN
        raise error
    status = errors.answer(call, error)
    await call.context.abort(status.code, status.message, _trailers(call.request_id, status))


def _trailers(request_id: str, status: Status) -> tuple[tuple[str, str | bytes], ...]:
    return ((KEY, request_id), (DETAILS_KEY, status.details))


class _UnknownMethods(grpc.GenericRpcHandler):
    """Answers UNIMPLEMENTED with details, without reading a message and without remembering the name."""

    def __init__(self, ids: RequestIds) -> None:
        self._ids = ids

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """Return a handler for any name."""
        path = handler_call_details.method

        async def refuse(requests: object, context: Context) -> None:
            request_id = self._ids.new()
            status = to_status(UnknownMethod(path[:200]), request_id)
            await context.abort(status.code, status.message, _trailers(request_id, status))

        return grpc.stream_stream_rpc_method_handler(refuse)
