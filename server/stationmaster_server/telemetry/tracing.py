"""OpenTelemetry traces: off unless a collector is configured, and then without cost to what is not sampled."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.trace import Tracer

from stationmaster_server.config import SettingsError


@dataclass(frozen=True, slots=True)
class Tracing:
    """A tracer that sends to the collector, and how to send the rest and stop."""

    tracer: Tracer
    shutdown: Callable[[], None]


def check(endpoint: str | None) -> None:
    """Raises SettingsError when there is an endpoint, and the extra `otel` is missing."""
    if endpoint is None:
        return
    try:
        importlib.import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter")
    except ImportError:
        raise SettingsError("telemetry.otlp_endpoint needs the extra: pip install 'stationmaster[otel]'") from None


def set_up(endpoint: str | None, *, sample_ratio: float, service_instance: str) -> Tracing | None:
    """Return tracing, or None without an endpoint. Raises SettingsError when the extra `otel` is missing."""
    check(endpoint)
    if endpoint is None:
        return None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    resource = Resource.create({"service.name": "stationmaster", "service.instance.id": service_instance})
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(sample_ratio)))
    provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://")))
    )
    return Tracing(provider.get_tracer("stationmaster_server"), provider.shutdown)
