"""Transcripts of the runtime `claude` go when their session has ended."""

from __future__ import annotations

from stationmaster_server.agents.transcript_store import TranscriptKey, append, load
from stationmaster_server.sessions.sweep_store import forget_transcripts

from tests.sessions.station import Station

ENTRY = {"type": "user", "uuid": "1"}


async def test_the_transcripts_of_ended_sessions_are_forgotten(station: Station) -> None:
    kept, ended = await station.create(), await station.create()
    organization_id = station.caller.tenant.organization_id
    async with station.database.system() as tx:
        for session_id in (kept, ended):
            for subpath in ("", "sub"):
                await append(tx, organization_id, TranscriptKey("p", str(session_id), subpath), [ENTRY])
    await station.sessions.terminate(station.caller, ended)
    async with station.database.system() as tx:
        assert await forget_transcripts(tx, 1) == 2
        assert await forget_transcripts(tx, 1) == 0
        assert await load(tx, organization_id, TranscriptKey("p", str(ended))) == []
        assert await load(tx, organization_id, TranscriptKey("p", str(kept))) == [ENTRY]
        assert await load(tx, organization_id, TranscriptKey("p", str(kept), "sub")) == [ENTRY]
