"""The format is what docs/formats/audit.md says: its vector comes out of the database, byte for byte."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from stationmaster_client.transparency import VerifierKey, verify_bundle
from stationmaster_server.audit.rows import created_at
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant

from tests.audit.conftest import make_caller, running
from tests.audit.verified import export, lines_of, signed

VECTORS = Path(__file__).parents[2] / "docs" / "vectors"
BUNDLE = (VECTORS / "audit.bundle").read_text()
KEY = (VECTORS / "audit.key").read_text()
USER = UUID("01936d3a-0000-7000-8000-000000000002")
_WRITE = """
WITH new AS (
    INSERT INTO audit_events (organization_id, created_at, id, category, action, outcome, actor, on_behalf_of, api_key,
        method, resource, reason, request_id, peer, details, salt)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
    RETURNING organization_id, id, created_at)
INSERT INTO audit_queue (organization_id, event_id, created_at) SELECT * FROM new
"""
_TEXTS = ("category", "action", "outcome", "actor", "on_behalf_of", "api_key", "method", "resource", "reason")


def events() -> list[dict[str, Any]]:
    """The events of the vector; what was deleted of the last one follows from the others."""
    found = [json.loads(line) for line in lines_of(BUNDLE)[1:-1]]
    deleted = found[2]
    body = json.loads(found[1]["body"]) | {"id": deleted["id"], "time": deleted["time"], "reason": ""}
    body |= {"action": "thing.3", "resource": "things/3", "details": {"n": 3}}
    return [
        *({**json.loads(each["body"]), "salt": b64decode(each["salt"])} for each in found[:2]),
        body | {"salt": b"\x03" * 32},
    ]


async def test_the_vector_comes_out_of_the_database(database: Database) -> None:
    tenant = Tenant(UUID(events()[0]["organization"]), USER)
    async with database.system() as tx:
        for event in events():
            event_id = UUID(event["id"])
            texts = (*(event[name] for name in _TEXTS), event["request_id"], event["peer"])
            row = (tenant.organization_id, created_at(event_id), event_id, *texts, event["details"], event["salt"])
            await tx.execute(_WRITE, *row)
    async with running(database) as server:
        caller = make_caller(tenant)
        await signed(server, caller, 3)
        async with database.system() as tx:
            await tx.execute("DELETE FROM audit_events WHERE action = 'thing.3'")
        assert await export(server, caller) == BUNDLE


def test_the_vector_verifies() -> None:
    keys = [VerifierKey.parse(KEY)]
    verified = verify_bundle(io.BytesIO(BUNDLE.encode()), keys, deleted_until=datetime(2025, 1, 1, tzinfo=UTC))
    assert (verified.events, verified.deleted) == (3, 1)
