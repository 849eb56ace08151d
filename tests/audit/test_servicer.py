"""AuditService as messages in and messages out."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from stationmaster.v1 import audit_pb2 as pb
from stationmaster_server.audit.model import AuditEntry, Category, Outcome
from stationmaster_server.identity.model import Caller
from stationmaster_server.wire.caller import calling
from stationmaster_server.wire.fields import mapping

from tests.audit.conftest import Server

NO_CONTEXT: Any = None


async def test_an_event_is_watched_listed_and_read(server: Server, caller: Caller) -> None:
    servicer = server.servicer
    details = {"limit": 3, "nested": {"list": [1, "two", None, True]}}
    entry = AuditEntry("thing.read", "things/1", Outcome.DENIED, Category.SECURITY, "SCOPE_MISSING", details)
    await server.log.write_refusal(caller, entry)
    with calling(caller):
        watch = servicer.WatchAuditEvents(pb.WatchAuditEventsRequest(), NO_CONTEXT)
        async with asyncio.timeout(20), aclosing(watch) as batches:
            batch = await anext(batches)
        (event,) = batch.audit_events
        assert (event.sequence, batch.last_sequence) == (1, 1)
        assert (event.category, event.outcome) == (pb.AUDIT_CATEGORY_SECURITY, pb.AUDIT_OUTCOME_DENIED)
        assert mapping(event.details, "details") == details
        listed = await servicer.ListAuditEvents(pb.ListAuditEventsRequest(filter="outcome = DENIED"), NO_CONTEXT)
        assert list(listed.audit_events) == [event]
        assert await servicer.GetAuditEvent(pb.GetAuditEventRequest(name=event.name), NO_CONTEXT) == event
