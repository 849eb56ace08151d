"""What every call passes, in which order, and what comes out when it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from stationmaster_server.wire.caller import current_caller, time_left

from tests.rpc.echo import SERVICE, EchoStub, messages
from tests.rpc.served import ALL, READER, Served, details_of, reason_of, refused, with_key
from tests.waiting import until

Code = grpc.StatusCode


def request(text: str = "hello", **fields: Any) -> Any:
    """A request of the echo service."""
    return messages()[0](text=text, **fields)


async def requests(*texts: str) -> AsyncIterator[Any]:
    """A stream of requests."""
    for text in texts:
        yield request(text)


async def test_all_four_kinds_of_call_pass(stub: EchoStub) -> None:
    key = with_key(ALL)
    assert (await stub.echo(request(), metadata=key)).text == "hello"
    assert [answer.text async for answer in stub.count(request("n", times=3), metadata=key)] == ["n0", "n1", "n2"]
    assert (await stub.join(requests("a", "b"), metadata=key)).text == "ab"
    assert [answer.text async for answer in stub.chat(requests("a", "b"), metadata=key)] == ["a", "b"]


async def test_a_call_without_a_key_is_unauthenticated(stub: EchoStub, served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as one:
        await stub.echo(request())
    with pytest.raises(grpc.aio.AioRpcError) as stream:
        await stub.count(request()).read()
    for error in (one.value, stream.value, await refused(stub.join), await refused(stub.chat)):
        assert error.code() is Code.UNAUTHENTICATED
        assert reason_of(error) == "CREDENTIALS_MISSING"
    assert served.echo.reached == 0


async def test_a_missing_scope_is_refused_before_the_request_is_read(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Guarded")
        for raw in (request("x" * 5000).SerializeToString(), b"\xff\xff not a message"):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(raw, metadata=with_key(READER))
            assert raised.value.code() is Code.PERMISSION_DENIED
            assert reason_of(raised.value) == "SCOPE_MISSING"
            details = str(raised.value.details())
            assert "this key lacks" in details or "the role" in details


async def test_a_refused_scope_is_in_the_audit_trail_when_its_caller_hears_of_it(
    stub: EchoStub, served: Served
) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.guarded(request(), metadata=with_key(READER))
    ((caller, entry),) = served.trail.entries
    assert caller.tenant == served.keys.tenants[READER]
    assert (entry.action, entry.outcome, entry.reason) == ("call.refuse", "denied", "SCOPE_MISSING")


async def test_an_invalid_request_is_told_each_wrong_field_by_its_path(stub: EchoStub, served: Served) -> None:
    bad = request("x" * 1001, times=-1, parts=[{"name": "fine"}, {"name": "NOT"}])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.echo(bad, metadata=with_key(ALL))
    assert raised.value.code() is Code.INVALID_ARGUMENT
    bad_request: Any = details_of(raised.value)["BadRequest"]
    assert [violation.field for violation in bad_request.field_violations] == ["text", "times", "parts[1].name"]
    assert served.echo.reached == 0


async def test_each_message_of_a_stream_is_validated(stub: EchoStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.join(requests("fine", "x" * 1001), metadata=with_key(ALL))
    assert raised.value.code() is Code.INVALID_ARGUMENT


async def test_bytes_that_are_no_message_are_an_invalid_argument(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Echo")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"\xff\xff\xff", metadata=with_key(ALL))
    assert raised.value.code() is Code.INVALID_ARGUMENT
    assert reason_of(raised.value) == "INVALID_FIELD"


@pytest.mark.parametrize(("size", "told"), [(5 * 1024 * 1024, True), (9 * 1024 * 1024, False)])
async def test_a_message_that_is_too_large_is_resource_exhausted(stub: EchoStub, size: int, told: bool) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.echo(request("x" * size), metadata=with_key(ALL))
    assert raised.value.code() is Code.RESOURCE_EXHAUSTED
    if told:  # grpc refuses what is far too large by itself
        assert reason_of(raised.value) == "MESSAGE_TOO_LARGE"


async def test_an_unknown_method_is_unimplemented_and_says_so(served: Served) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        for path in (f"/{SERVICE}/Nope", "/no.such.Service/Echo"):
            call: Any = channel.unary_unary(path)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"", metadata=with_key(ALL))
            assert raised.value.code() is Code.UNIMPLEMENTED
            assert reason_of(raised.value) == "UNKNOWN_METHOD"


async def test_the_text_of_an_unexpected_error_stays_here(
    stub: EchoStub, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_request: Any, _context: Any) -> None:
        raise RuntimeError("postgresql://user:hunter2@db")

    served.echo.behave = fail
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.echo(request(), metadata=(*with_key(ALL), ("stationmaster-request-id", "abc-1")))
    error = raised.value
    assert error.code() is Code.INTERNAL
    assert reason_of(error) == "INTERNAL"
    assert "hunter2" not in repr(error)
    assert "abc-1" in (error.details() or "")
    info: Any = details_of(error)["RequestInfo"]
    assert info.request_id == "abc-1"


async def test_a_well_formed_request_id_is_kept_and_another_replaced(stub: EchoStub) -> None:
    for given, kept in (("req.1:a-B", True), ("two words", False), ("x" * 65, False)):
        call = stub.echo(request(), metadata=(*with_key(ALL), ("stationmaster-request-id", given)))
        sent = dict(await call.trailing_metadata() or ())["stationmaster-request-id"]
        assert (sent == given) is kept
        assert sent


async def test_every_call_has_an_id_of_its_own(stub: EchoStub) -> None:
    calls = [stub.echo(request(), metadata=with_key(ALL)) for _ in range(50)]
    ids = {dict(await call.trailing_metadata() or ())["stationmaster-request-id"] for call in calls}
    assert len(ids) == 50


async def test_a_stream_tells_its_request_id_at_once(stub: EchoStub) -> None:
    call = stub.count(request(), metadata=with_key(ALL))
    assert dict(await call.initial_metadata())["stationmaster-request-id"]
    call.cancel()


async def test_the_servicer_knows_who_calls_and_until_when(stub: EchoStub, served: Served) -> None:
    seen: list[Any] = []

    async def look(_request: Any, _context: Any) -> None:
        seen.extend((current_caller(), time_left()))

    served.echo.behave = look
    await stub.echo(request(), metadata=with_key(ALL), timeout=30)
    caller, left = seen
    assert caller.tenant == served.keys.tenants[ALL]
    assert caller.method == f"/{SERVICE}/Echo"
    assert caller.request_id
    assert 25 < left.total_seconds() < 35  # gRPC counts it by a clock of its own


async def test_work_stops_when_the_deadline_passes(stub: EchoStub, served: Served) -> None:
    async def never_end(_request: Any, _context: Any) -> None:
        await asyncio.Event().wait()

    served.echo.behave = never_end
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.echo(request(), metadata=with_key(ALL), timeout=0.2)
    assert raised.value.code() is Code.DEADLINE_EXCEEDED

    async def ended() -> bool:
        return served.echo.ended == ["CancelledError"] and served.admission.calls == 0

    await until(ended)


async def test_a_stream_whose_reader_leaves_ends_here_and_now(stub: EchoStub, served: Served) -> None:
    call = stub.count(request(), metadata=with_key(ALL))
    await call.read()
    assert served.admission.streams == 1
    call.cancel()

    async def ended() -> bool:
        return bool(served.echo.ended) and served.admission.streams == 0

    await until(ended)
    assert served.echo.ended == ["CancelledError"]
    assert served.metrics.of(SERVICE, "Count").codes == {"CANCELLED": 1}
