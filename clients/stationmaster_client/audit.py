"""The audit trail: every change and every refusal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Unpack

from stationmaster.v1 import audit_pb2, audit_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query
from stationmaster_client.sources import AuditSource
from stationmaster_client.stream import EventStream, Interruption


class Audit:
    """`auditEvents/…` of the caller's organization."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = audit_pb2_grpc.AuditServiceStub(calls.channel)

    async def get(self, name: str) -> audit_pb2.AuditEvent:
        """Return one event."""
        request = audit_pb2.GetAuditEventRequest(name=full("auditEvents", name))
        return await self._calls.unary(self._stub.GetAuditEvent, request)

    def list(self, **query: Unpack[Query]) -> Listing[audit_pb2.AuditEvent, audit_pb2.ListAuditEventsResponse]:
        """List events, newest first."""

        async def fetch(token: str) -> audit_pb2.ListAuditEventsResponse:
            request = audit_pb2.ListAuditEventsRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListAuditEvents, request)

        return Listing(fetch, lambda page: page.audit_events)

    def watch(
        self,
        after: int = 0,
        *,
        condition: str = "",
        only_new: bool = False,
        patience: timedelta | None = None,
        on_interruption: Callable[[Interruption], None] | None = None,
    ) -> EventStream[audit_pb2.AuditEvent]:
        """Every event after a sequence that matches the filter `condition`, then new ones; resumes by itself."""
        request = audit_pb2.WatchAuditEventsRequest(after_sequence=after, filter=condition, only_new=only_new)
        source = AuditSource(request, lambda current: self._calls.stream(self._stub.WatchAuditEvents, current))
        return EventStream(source, patience=patience, on_interruption=on_interruption)
