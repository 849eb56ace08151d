"""Audit events as messages."""

from __future__ import annotations

from stationmaster.v1 import audit_pb2 as pb

from stationmaster_server.audit.model import AuditBatch, AuditEvent
from stationmaster_server.wire.fields import struct, timestamp

EVENT_NAME = "auditEvents/{audit_event}"


def event_to_proto(event: AuditEvent) -> pb.AuditEvent:
    """An event as its message."""
    return pb.AuditEvent(
        name=f"auditEvents/{event.id}",
        sequence=event.sequence,
        create_time=timestamp(event.created_at),
        category=pb.AuditCategory.Value(f"AUDIT_CATEGORY_{event.category.name}"),
        action=event.action,
        outcome=pb.AuditOutcome.Value(f"AUDIT_OUTCOME_{event.outcome.name}"),
        actor=event.actor,
        on_behalf_of=event.on_behalf_of,
        api_key=event.api_key,
        method=event.method,
        resource=event.resource,
        reason=event.reason,
        request_id=event.request_id,
        peer=event.peer,
        details=struct(event.details),
    )


def batch_to_proto(batch: AuditBatch) -> pb.WatchAuditEventsResponse:
    """A batch of a watch as its message."""
    return pb.WatchAuditEventsResponse(
        audit_events=[event_to_proto(event) for event in batch.events], last_sequence=batch.last_sequence
    )
