"""What a call leaves behind: metrics, lines of log, a trace."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stationmaster_server.rpc.interceptors.observation import trace_id_of
from stationmaster_server.rpc.interceptors.tracing import Tracing
from stationmaster_server.telemetry import context
from structlog.testing import capture_logs

from tests.rpc.echo import SERVICE, messages
from tests.rpc.served import ALL, READER, Served, serving, with_key
from tests.waiting import until

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")


async def test_every_call_is_counted_by_how_it_ended(served: Served) -> None:
    async with served.stub() as stub:
        request = messages()[0](text="x")
        await stub.guarded(request, metadata=with_key(ALL))
        for key in (READER, "nobody"):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.guarded(request, metadata=with_key(key))

    async def counted() -> bool:
        calls = served.metrics.of(SERVICE, "Guarded")
        return calls.codes == {"OK": 1, "PERMISSION_DENIED": 1, "UNAUTHENTICATED": 1} and calls.open == 0

    await until(counted)


async def test_a_failed_call_leaves_one_line_that_names_the_caller_and_no_more(served: Served) -> None:
    with capture_logs() as lines:
        async with served.stub() as stub:
            await stub.guarded(messages()[0](text="x"), metadata=with_key(ALL))
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.guarded(messages()[0](text="x"), metadata=with_key(READER))

        async def written() -> bool:
            return bool(lines)

        await until(written)
    (line,) = lines
    assert (line["code"], line["reason"], line["subject"]) == ("PERMISSION_DENIED", "SCOPE_MISSING", "api_key:reader")
    assert line["log_level"] == "info"


async def test_what_a_servicer_logs_carries_the_ids_of_its_call(served: Served) -> None:
    seen: list[str] = []

    async def look(_request: Any, _context: Any) -> None:
        seen.extend((context.request_id.get(), context.trace_id.get()))

    served.echo.behave = look
    async with served.stub() as stub:
        metadata = (*with_key(ALL), ("stationmaster-request-id", "r-1"), TRACEPARENT)
        await stub.echo(messages()[0](text="x"), metadata=metadata)
    assert seen == ["r-1", TRACE]


async def test_a_span_continues_the_callers_trace_and_tells_how_the_call_ended() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with serving(more=[Tracing(provider.get_tracer("tests"))]) as served, served.stub() as stub:

        async def fail(_request: Any, _context: Any) -> None:
            raise RuntimeError("broken")

        await stub.echo(messages()[0](text="x"), metadata=(*with_key(ALL), TRACEPARENT))
        served.echo.behave = fail
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.echo(messages()[0](text="x"), metadata=with_key(ALL))

        async def ended() -> bool:
            return len(exporter.get_finished_spans()) == 2

        await until(ended)
    good, bad = exporter.get_finished_spans()
    assert good.name == f"{SERVICE}/Echo"
    assert good.context is not None
    assert format(good.context.trace_id, "032x") == TRACE
    assert (good.attributes or {})["rpc.grpc.status_code"] == 0
    assert (bad.attributes or {})["rpc.grpc.status_code"] == grpc.StatusCode.INTERNAL.value[0]
    assert not bad.status.is_ok
    assert [event.name for event in bad.events] == ["exception"]


@pytest.mark.parametrize("value", ["", "00-xyz-1-01", f"00-{TRACE[:-1]}-b7ad6b7169203331-01", "00"])
def test_a_malformed_traceparent_is_ignored(value: str) -> None:
    assert trace_id_of(value) == ""
