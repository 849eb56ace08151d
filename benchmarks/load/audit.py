"""The audit trail: events put into their trees in the load's process, and how long one is without a checkpoint."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta

import grpc
from stationmaster.v1 import audit_pb2
from stationmaster_server.audit.sequencer import BATCH, place
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.partitions import ensure_every_partition
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.identity.system import system_caller

from benchmarks.load.channel import DEADLINE, Metadata, channel, pairs, unary_call
from benchmarks.stats import percentile

SERVICE = "/stationmaster.v1.AuditService"
_GAP = 0.15


async def audit_place(*, url: str, count: int, organizations: int) -> dict[str, float]:
    """Events a second that get their places, leaves, nodes and roots; the trail there is stays."""
    database = await Database.connect(url, pool_size=2, system_pool_size=4, connect_timeout=timedelta(seconds=30))
    try:
        await ensure_every_partition(database, 1)
        tenants = [Tenant(new_id(), new_id()) for _ in range(organizations)]
        callers = [system_caller(each.organization_id, each.user_id) for each in tenants]
        entry = AuditEntry(
            "session.create", f"sessions/{new_id()}", details={"agent": "agents/helper", "model": "demo"}
        )
        for at in range(0, count, 1000):
            async with database.system() as tx:
                entries = [(callers[n % organizations], entry) for n in range(at, min(at + 1000, count))]
                await AuditLog(database).write_many(tx, entries)
        began = time.perf_counter()
        taken = BATCH
        while taken == BATCH:
            async with database.system() as tx:
                taken = await place(tx, BATCH)
        return {"rate": count / (time.perf_counter() - began)}
    finally:
        await database.close()


async def checkpoint_lag(*, target: str, seconds: float, metadata: Metadata = ()) -> dict[str, float]:
    """Seconds from an event's commit to a signed checkpoint that it is proven under; p50, p99 and the worst."""
    took: list[float] = []
    sent = pairs(metadata)
    async with channel(target) as one:
        record, prove = unary_call(one, f"{SERVICE}/RecordEvent"), unary_call(one, f"{SERVICE}/GetInclusionProof")
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not took:
            request = audit_pb2.RecordEventRequest(action="custom.bench", request_id=str(uuid.uuid4()))
            answer = await record(request.SerializeToString(), metadata=sent, timeout=DEADLINE)
            began = time.perf_counter()
            name = audit_pb2.AuditEvent.FromString(answer).name
            wanted = audit_pb2.GetInclusionProofRequest(name=name).SerializeToString()
            while True:
                try:
                    await prove(wanted, metadata=sent, timeout=DEADLINE)
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    await asyncio.sleep(0.01)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(_GAP)
    return {"p50": percentile(took, 0.5), "p99": percentile(took, 0.99), "worst": max(took)}
