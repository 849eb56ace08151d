"""Audit events, checkpoints and proofs as messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from stationmaster.v1 import audit_pb2 as pb

from stationmaster_server.audit.model import (
    AuditBatch,
    AuditEntry,
    AuditEvent,
    AuditStats,
    Category,
    Checkpoint,
    Counted,
    ExportFormat,
    Leaf,
    LogKey,
    Outcome,
    Proof,
)
from stationmaster_server.audit.notes import ED25519, VerifierKey, origin_of
from stationmaster_server.wire.fields import mapping, struct, timestamp

EVENT_NAME = "auditEvents/{audit_event}"
_CATEGORIES = {
    pb.AUDIT_CATEGORY_UNSPECIFIED: Category.BUSINESS,
    **{pb.AuditCategory.Value(f"AUDIT_CATEGORY_{category.name}"): category for category in Category},
}
_OUTCOMES = {
    pb.AUDIT_OUTCOME_UNSPECIFIED: Outcome.ALLOWED,
    **{pb.AuditOutcome.Value(f"AUDIT_OUTCOME_{outcome.name}"): outcome for outcome in Outcome},
}


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


def entry_of(request: pb.RecordEventRequest) -> AuditEntry:
    """What a caller wants to have written."""
    return AuditEntry(
        request.action,
        request.resource,
        _OUTCOMES[request.outcome],
        _CATEGORIES[request.category],
        request.reason,
        mapping(request.details, "details"),
    )


def checkpoint_to_proto(checkpoint: Checkpoint, keys: Sequence[LogKey], organization_id: UUID) -> pb.AuditCheckpoint:
    """A checkpoint as its message."""
    origin = origin_of(organization_id)
    return pb.AuditCheckpoint(
        size=checkpoint.size,
        root_hash=checkpoint.root,
        note=checkpoint.best_note,
        sign_time=timestamp(checkpoint.signed_at),
        keys=[
            pb.AuditKey(
                verifier_key=str(VerifierKey(origin, ED25519, key.public_key)),
                create_time=timestamp(key.created_at),
                retire_time=timestamp(key.retired_at),
            )
            for key in keys
        ],
    )


def inclusion_to_proto(leaf: Leaf, proof: Proof) -> pb.InclusionProof:
    """A proof as its message."""
    return pb.InclusionProof(
        sequence=leaf.sequence,
        create_time=timestamp(leaf.created_at),
        commitment=leaf.commitment,
        salt=leaf.salt or b"",
        body=leaf.body or "",
        tree_size=proof.size,
        hashes=proof.hashes,
        checkpoint=proof.note,
    )


def consistency_to_proto(first_size: int, proof: Proof) -> pb.ConsistencyProof:
    """A proof as its message."""
    return pb.ConsistencyProof(
        first_size=first_size, second_size=proof.size, hashes=proof.hashes, checkpoint=proof.note
    )


def format_of(value: pb.AuditExportFormat.ValueType) -> ExportFormat:
    """A format of the contract as ours."""
    return ExportFormat[pb.AuditExportFormat.Name(value).removeprefix("AUDIT_EXPORT_FORMAT_")]


def stats_to_proto(stats: AuditStats, start: datetime, end: datetime) -> pb.AuditStats:
    """Statistics as their message."""
    return pb.AuditStats(
        start_time=timestamp(start),
        end_time=timestamp(end),
        total=stats.total,
        categories=_counts([Counted(each.value.upper(), each.count) for each in stats.by_category]),
        outcomes=_counts([Counted(each.value.upper(), each.count) for each in stats.by_outcome]),
        actions=_counts(stats.by_action),
        actors=_counts(stats.by_actor),
        tree_size=stats.tree_size,
        checkpoint_size=stats.checkpoint_size,
        queued=stats.queued,
        oldest_time=timestamp(stats.oldest),
    )


def _counts(counted: Sequence[Counted]) -> list[pb.AuditStats.Count]:
    return [pb.AuditStats.Count(key=each.value, count=each.count) for each in counted]
