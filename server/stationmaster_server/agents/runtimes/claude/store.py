"""The SDK's SessionStore on our database: any server can take a transcript up."""

from __future__ import annotations

from typing import Any, cast

from claude_agent_sdk import (
    SessionKey,
    SessionListSubkeysKey,
    SessionStore,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
    fold_session_summary,
)

from stationmaster_server.agents import transcript_store
from stationmaster_server.agents.transcript_store import Entry, TranscriptKey
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction

PROJECT = "stationmaster"


class Transcripts(SessionStore):
    """Of one tenant, under row-level security.

    With `project` every transcript is in that one, whatever the SDK says: it names a project after a folder of one
    server. What is written is not audited: it repeats what the messages say, whose writing was.
    """

    def __init__(self, database: Database, tenant: Tenant, project: str = "") -> None:
        self._database = database
        self._tenant = tenant
        self._project = project

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add entries to a transcript; one that is there already is not added again."""
        if not entries:
            return

        def fold(before: dict[str, Any] | None) -> dict[str, Any]:
            previous = None if before is None else cast("SessionSummaryEntry", {**before, "mtime": 0})
            folded = fold_session_summary(previous, key, entries)
            return {"session_id": folded["session_id"], "data": folded["data"]}

        async with self._database.tenant(self._tenant) as tx:
            ours = cast("list[Entry]", entries)
            await transcript_store.append(tx, self._id, self._key(key), ours, None if key.get("subpath") else fold)
            _not_audited(tx)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """A whole transcript; None when there is none."""
        async with self._database.tenant(self._tenant, read=True) as tx:
            found = await transcript_store.load(tx, self._id, self._key(key))
        return cast("list[SessionStoreEntry]", found) or None

    async def replace(self, key: SessionKey, entries: list[Entry]) -> None:
        """A transcript that holds these entries and no others."""
        async with self._database.tenant(self._tenant) as tx:
            await transcript_store.delete(tx, self._id, self._key(key))
            if entries:
                await transcript_store.append(tx, self._id, self._key(key), entries)
            _not_audited(tx)

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The transcripts of a project."""
        async with self._database.tenant(self._tenant, read=True) as tx:
            found = await transcript_store.list_main(tx, self._id, self._project or project_key)
        return [{"session_id": one.transcript_id, "mtime": one.written_at_ms} for one in found]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """What the SDK made of each transcript of a project."""
        async with self._database.tenant(self._tenant, read=True) as tx:
            found = await transcript_store.list_main(tx, self._id, self._project or project_key)
        return [
            {"session_id": one.transcript_id, "mtime": one.written_at_ms, "data": one.summary["data"]}
            for one in found
            if one.summary is not None
        ]

    async def delete(self, key: SessionKey) -> None:
        """Remove a transcript, with what belongs to it."""
        async with self._database.tenant(self._tenant) as tx:
            await transcript_store.delete(tx, self._id, self._key(key))
            _not_audited(tx)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """What belongs to a transcript."""
        project = self._project or key["project_key"]
        async with self._database.tenant(self._tenant, read=True) as tx:
            return await transcript_store.list_subpaths(tx, self._id, project, key["session_id"])

    @property
    def _id(self) -> Any:
        return self._tenant.organization_id

    def _key(self, key: SessionKey) -> TranscriptKey:
        return TranscriptKey(self._project or key["project_key"], key["session_id"], key.get("subpath", ""))


def _not_audited(tx: Transaction) -> None:
    tx.audited = True
