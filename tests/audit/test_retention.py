"""What events said is forgotten when its time is over; that they were there is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from google.protobuf import json_format
from stationmaster.v1 import audit_pb2 as pb
from stationmaster_client.transparency import Tampered
from stationmaster_server.audit.model import Category
from stationmaster_server.audit.retention import Retention
from stationmaster_server.audit.rows import created_at
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.identity.model import Caller
from stationmaster_server.wire.caller import calling

from tests.audit.conftest import Server, running
from tests.audit.test_proofs import NO_CONTEXT
from tests.audit.verified import export, signed, verify

DAY = timedelta(days=1)
_WRITE = """
WITH new AS (
    INSERT INTO audit_events (organization_id, created_at, id, category, action, outcome, actor, on_behalf_of, api_key,
        method, resource, reason, request_id, peer, details)
    VALUES ($1, $2, $3, $4, 'thing.old', 'allowed', 'users/x', '', '', '', '', '', '', '', '{}')
    RETURNING organization_id, id, created_at)
INSERT INTO audit_queue (organization_id, event_id, created_at) SELECT * FROM new
"""


async def write_old(database: Database, caller: Caller, age: timedelta, category: Category = Category.BUSINESS) -> None:
    """An event of long ago."""
    async with database.system() as tx:
        moment = datetime.now(UTC) - age
        # Its id carries that time, by which it is found.
        event_id = UUID(int=(int(moment.timestamp() * 1000) << 80) | (new_id().int & (2**80 - 1)))
        await tx.execute(_WRITE, caller.tenant.organization_id, created_at(event_id), event_id, category.value)


async def test_events_past_the_time_of_their_category_are_deleted_and_the_tree_stays(
    server: Server, caller: Caller
) -> None:
    await write_old(server.database, caller, 40 * DAY)
    await write_old(server.database, caller, 40 * DAY, Category.SECURITY)
    await write_old(server.database, caller, 10 * DAY)
    await server.change(caller)
    before = await signed(server, caller, 4)
    retention = Retention(server.database, server.log, {Category.BUSINESS: 30 * DAY})
    await retention.run()
    await retention.run()
    assert (retention.deleted, retention.dropped) == (1, 0)
    bundle = await export(server, caller)
    with pytest.raises(Tampered, match="was deleted"):
        verify(bundle, caller, before)
    verified = verify(bundle, caller, before, deleted_until=datetime.now(UTC) - 30 * DAY)
    assert (verified.deleted, verified.events) == (1, 4)
    with pytest.raises(Tampered, match="was deleted"):
        verify(bundle, caller, before, deleted_until=datetime.now(UTC) - 50 * DAY)


async def test_the_place_of_a_deleted_event_is_still_proven(server: Server, caller: Caller) -> None:
    await write_old(server.database, caller, 40 * DAY)
    await signed(server, caller, 1)
    with calling(caller):
        (event,) = (await server.servicer.ListAuditEvents(pb.ListAuditEventsRequest(), NO_CONTEXT)).audit_events
        await Retention(server.database, server.log, {Category.BUSINESS: DAY}).run()
        proof = await server.servicer.GetInclusionProof(pb.GetInclusionProofRequest(name=event.name), NO_CONTEXT)
    assert (proof.sequence, proof.salt, proof.body, len(proof.commitment)) == (1, b"", "", 32)


async def test_months_in_which_everything_is_past_its_time_are_dropped_whole(
    database: Database, database_url: str, caller: Caller
) -> None:
    keep = dict.fromkeys(Category, 30 * DAY)
    await make_partition(database_url, datetime.now(UTC) - 100 * DAY)
    async with running(database) as server:
        await write_old(database, caller, 100 * DAY)
        await write_old(database, caller, DAY)
        before = await signed(server, caller, 2)
        retention = Retention(database, server.log, keep)
        await retention.run()
        assert (retention.deleted, retention.dropped) == (0, 1)
        verified = verify(await export(server, caller), caller, before, deleted_until=datetime.now(UTC) - 30 * DAY)
        assert (verified.deleted, verified.events) == (1, 2)


async def test_of_what_is_forgotten_the_trail_tells_and_of_that_only_once(server: Server, caller: Caller) -> None:
    for _ in range(3):
        await write_old(server.database, caller, 40 * DAY)
    await signed(server, caller, 3)
    retention = Retention(server.database, server.log, {Category.BUSINESS: 30 * DAY, Category.SYSTEM: 30 * DAY})
    await retention.run()
    await retention.run()
    await signed(server, caller, 4)
    with calling(caller):
        (event,) = (await server.servicer.ListAuditEvents(pb.ListAuditEventsRequest(), NO_CONTEXT)).audit_events
    organization = f"organizations/{caller.tenant.organization_id}"
    assert (event.action, event.actor, event.resource) == ("audit.forget", "system", organization)
    assert json_format.MessageToDict(event.details) == {"category": "business", "kept_days": 30.0, "events": 3.0}
    retention = Retention(server.database, server.log, {Category.SYSTEM: timedelta(0)})
    await retention.run()
    assert retention.deleted == 1
    with calling(caller):
        assert not (await server.servicer.ListAuditEvents(pb.ListAuditEventsRequest(), NO_CONTEXT)).audit_events


async def test_what_waits_for_its_place_is_not_deleted(database: Database, database_url: str, caller: Caller) -> None:
    await make_partition(database_url, datetime.now(UTC) - 100 * DAY)
    await write_old(database, caller, 100 * DAY)
    retention = Retention(database, AuditLog(database), dict.fromkeys(Category, DAY))
    await retention.run()
    assert (retention.deleted, retention.dropped) == (0, 0)
    async with running(database) as server:
        await signed(server, caller, 1)
    await retention.run()
    assert retention.dropped == 1


async def make_partition(database_url: str, moment: datetime) -> None:
    """The partition of a month that is over, as it was made when it began."""
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last = (first + timedelta(days=32)).replace(day=1)
    owner = await asyncpg.connect(database_url)
    try:
        name = f"audit_events_{first:%Y_%m}"
        bounds = f"FROM ('{first.isoformat()}') TO ('{last.isoformat()}')"
        await owner.execute(f"CREATE TABLE {name} PARTITION OF audit_events FOR VALUES {bounds}")
    finally:
        await owner.close()
