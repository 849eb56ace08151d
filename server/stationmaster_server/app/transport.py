"""The chain of interceptors, in its order."""

from __future__ import annotations

from dataclasses import dataclass

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.config import Settings
from stationmaster_server.identity.authentication import Authenticator
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.resilience.rate_limit import TokenBucket, TokenBuckets
from stationmaster_server.rpc.chain import Chain
from stationmaster_server.rpc.interceptors.admission import Admission
from stationmaster_server.rpc.interceptors.authentication import Authentication
from stationmaster_server.rpc.interceptors.base import Interceptor
from stationmaster_server.rpc.interceptors.deadline import Deadlines
from stationmaster_server.rpc.interceptors.observation import Observation
from stationmaster_server.rpc.interceptors.rate_limit import CallerRate, CallQuota, ServerRate
from stationmaster_server.rpc.interceptors.refusals import Refusals
from stationmaster_server.rpc.interceptors.request_id import Announcement, RequestIds
from stationmaster_server.rpc.interceptors.scope import Scopes
from stationmaster_server.rpc.interceptors.tracing import Tracing
from stationmaster_server.rpc.interceptors.validation import Validation
from stationmaster_server.telemetry import tracing
from stationmaster_server.telemetry.calls import CallMetrics
from stationmaster_server.telemetry.metrics import Metrics

UNCOUNTED = frozenset(
    f"/stationmaster.v1.IdentityService/{name}" for name in ("WhoAmI", "GetQuota", "GetQuotaUsage", "SetQuota")
)
"""Methods that cost nothing of the calls per hour: who has used them up can still see that, and change the quota."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Who may come in: what the chain asks about each call."""

    authenticator: Authenticator
    quotas: Quotas
    audit: AuditLog

    def refused(self) -> dict[str, float]:
        """How many calls were refused for who sent them, by reason."""
        return {reason.value: float(count) for reason, count in self.authenticator.refusals.items()}


def build_chain(settings: Settings, gate: Gate, metrics: Metrics, traces: tracing.Tracing | None) -> Chain:
    """Return the chain. What is cheap and refuses most comes first; nothing is read of a request before `Scopes`."""
    server, limits, telemetry = settings.server, settings.limits, settings.telemetry
    calls = CallMetrics()
    metrics.collect_from(calls)
    admission = Admission(max_calls=server.max_calls, max_streams=server.max_streams)
    metrics.read(
        "calls_under_way", "Calls and streams open now.", lambda: {"call": admission.calls, "stream": admission.streams}
    )
    metrics.read("refused_callers", "Calls refused for who sent them.", gate.refused, label="reason", total=True)
    refusals = Refusals(gate.audit)
    interceptors: list[Interceptor] = [
        Observation(calls, access_log=telemetry.access_log, slow=telemetry.slow_call),
        *([Tracing(traces.tracer)] if traces else []),
        admission,
        ServerRate(TokenBucket(limits.calls_per_second, limits.burst)),
        Announcement(),
        Authentication(gate.authenticator, client_certificates=server.tls.client_ca is not None),
        CallerRate(TokenBuckets(limits.caller_calls_per_second, limits.caller_burst), refusals),
        Scopes(refusals),
        Deadlines(),
        CallQuota(gate.quotas.take_call, UNCOUNTED),
        Validation(),
    ]
    return Chain(RequestIds(), interceptors, max_message_bytes=server.max_message_bytes)
