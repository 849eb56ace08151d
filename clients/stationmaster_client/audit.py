"""The audit trail: every change and every refusal, in a Merkle tree that can be verified (`transparency`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias, Unpack

from grpc import aio
from stationmaster.v1 import audit_pb2, audit_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.errors import from_rpc_error
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query
from stationmaster_client.sources import AuditSource
from stationmaster_client.stream import EventStream, Interruption
from stationmaster_client.times import to_timestamp
from stationmaster_client.values import to_struct

Category: TypeAlias = audit_pb2.AuditCategory.ValueType
Outcome: TypeAlias = audit_pb2.AuditOutcome.ValueType
ExportFormat: TypeAlias = audit_pb2.AuditExportFormat.ValueType
JSON_LINES, CSV, BUNDLE = (
    audit_pb2.AUDIT_EXPORT_FORMAT_JSON_LINES,
    audit_pb2.AUDIT_EXPORT_FORMAT_CSV,
    audit_pb2.AUDIT_EXPORT_FORMAT_BUNDLE,
)


class Audit:
    """`auditEvents/…` of the caller's organization."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = audit_pb2_grpc.AuditServiceStub(calls.channel)

    async def record(
        self,
        action: str,
        resource: str = "",
        *,
        category: Category = audit_pb2.AUDIT_CATEGORY_UNSPECIFIED,
        outcome: Outcome = audit_pb2.AUDIT_OUTCOME_UNSPECIFIED,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        request_id: str = "",
    ) -> audit_pb2.AuditEvent:
        """Write an event of your own; its action begins with `custom.`."""
        request = audit_pb2.RecordEventRequest(
            action=action,
            resource=resource,
            category=category,
            outcome=outcome,
            reason=reason,
            details=to_struct(details),
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.RecordEvent, request)

    async def checkpoint(self, *, cosigned: bool = False) -> audit_pb2.AuditCheckpoint:
        """Return the newest signed checkpoint, or the newest that witnesses cosigned, and the keys of the log."""
        return await self._calls.unary(self._stub.GetCheckpoint, audit_pb2.GetCheckpointRequest(cosigned=cosigned))

    async def inclusion(self, name: str, tree_size: int = 0) -> audit_pb2.InclusionProof:
        """Return the proof that an event is in the tree of a size; 0: of the newest checkpoint."""
        request = audit_pb2.GetInclusionProofRequest(name=full("auditEvents", name), tree_size=tree_size)
        return await self._calls.unary(self._stub.GetInclusionProof, request)

    async def consistency(self, first_size: int, second_size: int = 0) -> audit_pb2.ConsistencyProof:
        """Return the proof that a tree (0: of the newest checkpoint) grew from an earlier one."""
        request = audit_pb2.GetConsistencyProofRequest(first_size=first_size, second_size=second_size)
        return await self._calls.unary(self._stub.GetConsistencyProof, request)

    async def export(
        self, form: ExportFormat = BUNDLE, *, condition: str = "", after: int = 0, cosigned: bool = False
    ) -> AsyncGenerator[str, None]:
        """The lines of a file of the events after a sequence, with their ends; one that breaks is to be begun anew."""
        request = audit_pb2.ExportAuditEventsRequest(
            format=form, filter=condition, after_sequence=after, cosigned=cosigned
        )
        call = self._calls.stream(self._stub.ExportAuditEvents, request)
        try:
            async for piece in call:
                for line in piece.lines:
                    yield line
        except aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    async def stats(self, start: datetime | None = None, end: datetime | None = None) -> audit_pb2.AuditStats:
        """Count the events of a span, by default of the last 30 days."""
        request = audit_pb2.GetAuditStatsRequest(start_time=to_timestamp(start), end_time=to_timestamp(end))
        return await self._calls.unary(self._stub.GetAuditStats, request)

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
