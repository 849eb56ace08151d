"""AuditService: messages in, the trail, messages out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from stationmaster.v1 import audit_pb2 as pb
from stationmaster.v1 import audit_pb2_grpc

from stationmaster_server.audit import convert
from stationmaster_server.audit.counting import Counting
from stationmaster_server.audit.exporting import Exporting
from stationmaster_server.audit.proofs import Proofs
from stationmaster_server.audit.recording import Recording
from stationmaster_server.audit.service import AuditTrail
from stationmaster_server.wire.caller import caller_of, current_caller
from stationmaster_server.wire.fields import moment
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]
_SPAN = timedelta(days=30)
_EARLIEST = datetime.min.replace(tzinfo=UTC)


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """The methods of AuditService."""

    def __init__(
        self,
        trail: AuditTrail,
        recording: Recording,
        proofs: Proofs,
        exporting: Exporting,
        counting: Counting,
        tokens: PageTokens,
    ) -> None:
        self._trail = trail
        self._recording = recording
        self._proofs = proofs
        self._exporting = exporting
        self._counting = counting
        self._tokens = tokens

    async def RecordEvent(self, request: pb.RecordEventRequest, context: Context) -> pb.AuditEvent:
        """An event of the caller's own."""
        return convert.event_to_proto(await self._recording.record(caller_of(request), convert.entry_of(request)))

    async def GetAuditEvent(self, request: pb.GetAuditEventRequest, context: Context) -> pb.AuditEvent:
        """One event."""
        return convert.event_to_proto(await self._trail.get(current_caller(), parse(convert.EVENT_NAME, request.name)))

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        """A page of events."""
        asked = self._tokens.read(request)
        page = await self._trail.list(current_caller(), request.filter, request.order_by, asked)
        audit_events, token = self._tokens.page(request, page, convert.event_to_proto)
        return pb.ListAuditEventsResponse(audit_events=audit_events, next_page_token=token)

    async def WatchAuditEvents(
        self, request: pb.WatchAuditEventsRequest, context: Context
    ) -> AsyncGenerator[pb.WatchAuditEventsResponse, None]:
        """Events as they come."""
        after = None if request.only_new else request.after_sequence
        async with aclosing(self._trail.watch(current_caller(), request.filter, after)) as batches:
            async for batch in batches:
                yield convert.batch_to_proto(batch)

    async def GetCheckpoint(self, request: pb.GetCheckpointRequest, context: Context) -> pb.AuditCheckpoint:
        """The newest checkpoint."""
        caller = current_caller()
        checkpoint = await self._proofs.checkpoint(caller, cosigned=request.cosigned)
        keys = await self._proofs.keys()
        return convert.checkpoint_to_proto(checkpoint, keys, caller.tenant.organization_id)

    async def GetInclusionProof(self, request: pb.GetInclusionProofRequest, context: Context) -> pb.InclusionProof:
        """That an event is in the tree."""
        event_id = parse(convert.EVENT_NAME, request.name)
        leaf, proof = await self._proofs.inclusion(current_caller(), event_id, request.tree_size)
        return convert.inclusion_to_proto(leaf, proof)

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.ConsistencyProof:
        """That a tree grew from another."""
        proof = await self._proofs.consistency(current_caller(), request.first_size, request.second_size)
        return convert.consistency_to_proto(request.first_size, proof)

    async def ExportAuditEvents(
        self, request: pb.ExportAuditEventsRequest, context: Context
    ) -> AsyncGenerator[pb.ExportAuditEventsResponse, None]:
        """Events as a file."""
        pieces = self._exporting.export(
            current_caller(),
            convert.format_of(request.format),
            request.filter,
            request.after_sequence,
            cosigned=request.cosigned,
        )
        async with aclosing(pieces):
            async for piece in pieces:
                yield pb.ExportAuditEventsResponse(lines=piece.lines, last_sequence=piece.last_sequence)

    async def GetAuditStats(self, request: pb.GetAuditStatsRequest, context: Context) -> pb.AuditStats:
        """What happened, counted."""
        end = moment(request, "end_time") or datetime.now(UTC)
        start = moment(request, "start_time") or end - min(_SPAN, end - _EARLIEST)
        stats = await self._counting.stats(current_caller(), start, end)
        return convert.stats_to_proto(stats, start, end)
