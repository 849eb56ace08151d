"""Checkpoints, proofs, own events and statistics, as messages."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from stationmaster.v1 import audit_pb2 as pb
from stationmaster_client.transparency import open_checkpoint
from stationmaster_client.transparency.tree import leaf_hash, verify_consistency, verify_inclusion
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import InvalidArgument, NotFound, Unavailable
from stationmaster_server.identity.model import AuditEntry, Caller
from stationmaster_server.wire.caller import calling

from tests.audit.conftest import Server, running
from tests.audit.test_bundles import fill
from tests.audit.verified import key_of, signed

NO_CONTEXT: Any = None


def leaf_of(name: str, proof: pb.InclusionProof) -> bytes:
    """An event's leaf, as docs/formats/audit.md says."""
    event_id = UUID(name.removeprefix("auditEvents/"))
    time = proof.create_time.ToMicroseconds()
    place = proof.sequence.to_bytes(8, "big") + event_id.bytes + time.to_bytes(8, "big")
    return b"stationmaster audit leaf v1\n" + place + proof.commitment


async def test_every_event_is_proven_under_the_checkpoint(server: Server, caller: Caller) -> None:
    await fill(server, caller, 40)
    servicer = server.servicer
    with calling(caller):
        checkpoint = await servicer.GetCheckpoint(pb.GetCheckpointRequest(), NO_CONTEXT)
        assert open_checkpoint(checkpoint.note, [key_of(caller)]).root == checkpoint.root_hash
        events = await servicer.ListAuditEvents(pb.ListAuditEventsRequest(page_size=100), NO_CONTEXT)
        for event in events.audit_events:
            for size in (0, event.sequence, checkpoint.size):
                request = pb.GetInclusionProofRequest(name=event.name, tree_size=size)
                proof = await servicer.GetInclusionProof(request, NO_CONTEXT)
                assert proof.commitment == sha256(proof.salt + proof.body.encode()).digest()
                body = json.loads(proof.body)
                assert (body["action"], f"auditEvents/{body['id']}") == (event.action, event.name)
                assert bool(proof.checkpoint) is (size != event.sequence or size == checkpoint.size)
                if proof.tree_size == checkpoint.size:
                    leaf = leaf_hash(leaf_of(event.name, proof))
                    index = proof.sequence - 1
                    assert verify_inclusion(index, checkpoint.size, leaf, list(proof.hashes), checkpoint.root_hash)


async def test_trees_are_proven_to_have_grown(server: Server, caller: Caller) -> None:
    servicer = server.servicer
    roots: dict[int, bytes] = {}
    with calling(caller):
        for _ in range(6):
            for _ in range(5):
                await server.change(caller)
            await signed(server, caller, len(roots) * 5 + 5)
            checkpoint = await servicer.GetCheckpoint(pb.GetCheckpointRequest(), NO_CONTEXT)
            roots[checkpoint.size] = checkpoint.root_hash
        for first, root1 in roots.items():
            for second, root2 in roots.items():
                if first <= second:
                    request = pb.GetConsistencyProofRequest(first_size=first, second_size=second)
                    proof = await servicer.GetConsistencyProof(request, NO_CONTEXT)
                    assert verify_consistency(first, second, root1, root2, list(proof.hashes))


async def test_there_is_no_proof_of_what_is_not_there(server: Server, caller: Caller, stranger: Caller) -> None:
    await fill(server, caller, 3)
    servicer = server.servicer
    with calling(caller):
        (event, *_) = (await servicer.ListAuditEvents(pb.ListAuditEventsRequest(), NO_CONTEXT)).audit_events
        with pytest.raises(NotFound):
            await servicer.GetInclusionProof(pb.GetInclusionProofRequest(name=f"auditEvents/{uuid4()}"), NO_CONTEXT)
        for size in (event.sequence - 1, 100):
            request = pb.GetInclusionProofRequest(name=event.name, tree_size=size)
            with pytest.raises(InvalidArgument):
                await servicer.GetInclusionProof(request, NO_CONTEXT)
        for first, second in ((2, 1), (0, 100), (100, 0)):
            wrong = pb.GetConsistencyProofRequest(first_size=first, second_size=second)
            with pytest.raises(InvalidArgument):
                await servicer.GetConsistencyProof(wrong, NO_CONTEXT)
    with calling(stranger):
        with pytest.raises(NotFound):
            await servicer.GetInclusionProof(pb.GetInclusionProofRequest(name=event.name), NO_CONTEXT)
        with pytest.raises(Unavailable):
            await servicer.GetCheckpoint(pb.GetCheckpointRequest(), NO_CONTEXT)


async def test_what_has_no_checkpoint_yet_is_told_to_come_soon(database: Database, caller: Caller) -> None:
    async with running(database, keys="") as server:
        await server.change(caller)
        event = AuditLog(database)
        async with database.tenant(caller.tenant) as tx:
            event_id = await event.write(tx, caller, AuditEntry("thing.change", "things/1"))
        request = pb.GetInclusionProofRequest(name=f"auditEvents/{event_id}")
        with calling(caller), pytest.raises(Unavailable, match="within about a second"):
            await server.servicer.GetInclusionProof(request, NO_CONTEXT)


async def test_own_events_are_recorded_once_for_each_request_id(server: Server, caller: Caller) -> None:
    request = pb.RecordEventRequest(
        action="custom.invoice.approve",
        resource="invoices/7",
        category=pb.AUDIT_CATEGORY_COMPLIANCE,
        outcome=pb.AUDIT_OUTCOME_DENIED,
        reason="too much",
        request_id=str(uuid4()),
    )
    request.details.update({"amount": 3, "api_key": "k"})
    with calling(caller):
        first = await server.servicer.RecordEvent(request, NO_CONTEXT)
        again = await server.servicer.RecordEvent(request, NO_CONTEXT)
        assert again == first
        bare = await server.servicer.RecordEvent(pb.RecordEventRequest(action="custom.x"), NO_CONTEXT)
    assert (first.action, first.resource, first.reason) == ("custom.invoice.approve", "invoices/7", "too much")
    assert (first.category, first.outcome) == (pb.AUDIT_CATEGORY_COMPLIANCE, pb.AUDIT_OUTCOME_DENIED)
    assert dict(first.details) == {"amount": 3, "api_key": "[secret]"}
    assert (bare.category, bare.outcome) == (pb.AUDIT_CATEGORY_BUSINESS, pb.AUDIT_OUTCOME_ALLOWED)
    await signed(server, caller, 2)


async def test_statistics_count_a_span(server: Server, caller: Caller, stranger: Caller) -> None:
    await fill(server, stranger, 2)
    await fill(server, caller, 25)
    await server.log.write_refusal(caller, AuditEntry("thing.0", "things/1"))
    await signed(server, caller, 26)
    with calling(caller):
        stats = await server.servicer.GetAuditStats(pb.GetAuditStatsRequest(), NO_CONTEXT)
        assert (stats.total, stats.tree_size, stats.checkpoint_size, stats.queued) == (26, 26, 26, 0)
        assert [(each.key, each.count) for each in stats.categories] == [("BUSINESS", 26)]
        assert [(each.key, each.count) for each in stats.outcomes] == [("ALLOWED", 26)]
        assert (stats.actions[0].key, stats.actions[0].count, len(stats.actions)) == ("thing.0", 2, 20)
        assert [(each.key, each.count) for each in stats.actors] == [(f"users/{caller.tenant.user_id}", 26)]
        assert stats.HasField("oldest_time")
        past = pb.GetAuditStatsRequest()
        past.end_time.FromJsonString("2020-01-01T00:00:00Z")
        assert (await server.servicer.GetAuditStats(past, NO_CONTEXT)).total == 0
        for start, end in (
            ("2020-01-02T00:00:00Z", "2020-01-01T00:00:00Z"),
            ("0001-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
            ("", "0001-01-01T00:00:00Z"),
        ):
            wrong = pb.GetAuditStatsRequest()
            if start:
                wrong.start_time.FromJsonString(start)
            wrong.end_time.FromJsonString(end)
            with pytest.raises(InvalidArgument):
                await server.servicer.GetAuditStats(wrong, NO_CONTEXT)


async def test_statistics_reach_to_the_ends_of_the_calendar(server: Server, caller: Caller) -> None:
    with calling(caller):
        for start, end in (("", "0001-01-02T00:00:00Z"), ("9999-06-01T00:00:00Z", "9999-12-30T00:00:00Z")):
            request = pb.GetAuditStatsRequest()
            if start:
                request.start_time.FromJsonString(start)
            request.end_time.FromJsonString(end)
            assert (await server.servicer.GetAuditStats(request, NO_CONTEXT)).total == 0
