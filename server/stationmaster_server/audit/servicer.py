"""AuditService: messages in, the trail, messages out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
from stationmaster.v1 import audit_pb2 as pb
from stationmaster.v1 import audit_pb2_grpc

from stationmaster_server.audit.convert import EVENT_NAME, batch_to_proto, event_to_proto
from stationmaster_server.audit.service import AuditTrail
from stationmaster_server.wire.caller import current_caller
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """The methods of AuditService."""

    def __init__(self, trail: AuditTrail, tokens: PageTokens) -> None:
        self._trail = trail
        self._tokens = tokens

    async def GetAuditEvent(self, request: pb.GetAuditEventRequest, context: Context) -> pb.AuditEvent:
        """One event."""
        return event_to_proto(await self._trail.get(current_caller(), parse(EVENT_NAME, request.name)))

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        """A page of events."""
        asked = self._tokens.read(request)
        page = await self._trail.list(current_caller(), request.filter, request.order_by, asked)
        audit_events, token = self._tokens.page(request, page, event_to_proto)
        return pb.ListAuditEventsResponse(audit_events=audit_events, next_page_token=token)

    async def WatchAuditEvents(
        self, request: pb.WatchAuditEventsRequest, context: Context
    ) -> AsyncGenerator[pb.WatchAuditEventsResponse, None]:
        """Events as they come."""
        after = None if request.only_new else request.after_sequence
        async with aclosing(self._trail.watch(current_caller(), request.filter, after)) as batches:
            async for batch in batches:
                yield batch_to_proto(batch)
