"""Transcripts in the database."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from claude_agent_sdk import SessionKey
from claude_agent_sdk.testing import run_session_store_conformance
from stationmaster_server.agents import transcript_store
from stationmaster_server.agents.runtimes.claude.store import Transcripts
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant

KEY: SessionKey = {"project_key": "p", "session_id": "s"}


def entry(uuid: str, **more: Any) -> Any:
    """An entry of a transcript; the store looks at its id alone."""
    return {"type": "user", "uuid": uuid, **more}


def tenant() -> Tenant:
    """A new one."""
    return Tenant(uuid4(), uuid4())


async def test_the_contract_of_the_sdk_is_kept(database: Database) -> None:
    await run_session_store_conformance(lambda: Transcripts(database, tenant()))


async def test_an_entry_that_is_written_again_is_there_once(database: Database) -> None:
    store = Transcripts(database, tenant())
    one, two = entry("1"), entry("2", text="NUL \0 and \ud800")
    await store.append(KEY, [one])
    await store.append(KEY, [one, two])
    assert await store.load(KEY) == [one, two]


async def test_no_tenant_sees_anothers(database: Database) -> None:
    mine, other = tenant(), tenant()
    await Transcripts(database, mine).append(KEY, [entry("1")])
    assert await Transcripts(database, other).load(KEY) is None
    assert await Transcripts(database, other).list_sessions("p") == []
    async with database.tenant(other, read=True) as tx:
        for table in ("agent_transcripts", "agent_transcript_entries"):
            assert await tx.fetchval(f"SELECT count(*) FROM {table}") == 0
    await Transcripts(database, other).delete(KEY)
    assert await Transcripts(database, mine).load(KEY) is not None


async def test_a_transcript_that_grows_too_long_is_dropped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript_store, "MAX_BYTES", 100)
    store = Transcripts(database, tenant())
    await store.append(KEY, [entry("1")])
    await store.append(KEY, [entry("2", text="x" * 100)])
    assert await store.load(KEY) is None
