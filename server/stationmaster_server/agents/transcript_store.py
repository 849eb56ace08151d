"""The queries of transcripts. Every one names the organization, whatever row-level security does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from stationmaster_server.db.transaction import Transaction

MAX_BYTES = 64 * 1024 * 1024
"""A transcript that would grow longer is dropped: its conversation is in the session's messages."""

Entry = dict[str, Any]
Fold = Callable[[dict[str, Any] | None], dict[str, Any]]

_THIS = "organization_id = $1 AND project = $2 AND transcript_id = $3 AND subpath = $4"


@dataclass(frozen=True, slots=True)
class TranscriptKey:
    """Which transcript. `subpath` is empty for a main one."""

    project: str
    transcript_id: str
    subpath: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """A main transcript: when it was written last, and what its writer made of it."""

    transcript_id: str
    written_at_ms: int
    summary: dict[str, Any] | None


async def append(
    tx: Transaction, organization_id: UUID, key: TranscriptKey, entries: Sequence[Entry], fold: Fold | None = None
) -> None:
    """Add entries that are not there yet. `fold` makes the new summary of the one before."""
    sql = """
    INSERT INTO agent_transcripts AS t (organization_id, project, transcript_id, subpath) VALUES ($1, $2, $3, $4)
    ON CONFLICT (organization_id, project, transcript_id, subpath) DO UPDATE SET last_position = t.last_position
    RETURNING last_position, size_bytes, summary
    """
    head = await tx.fetchrow(sql, organization_id, *_columns(key))
    if head is None:
        raise LookupError("an upsert returns its row")
    texts = [json.dumps(entry, separators=(",", ":")) for entry in entries]
    size = head["size_bytes"] + sum(map(len, texts))
    if size > MAX_BYTES:
        await delete(tx, organization_id, key)
        return
    sql = """
    INSERT INTO agent_transcript_entries (organization_id, project, transcript_id, subpath, position, uuid, entry)
    SELECT $1, $2, $3, $4, $5 + e.number, e.uuid, e.entry
    FROM unnest($6::text[], $7::text[]) WITH ORDINALITY AS e (uuid, entry, number)
    ON CONFLICT (organization_id, project, transcript_id, subpath, uuid) DO NOTHING
    """
    ids = [entry.get("uuid") for entry in entries]
    await tx.execute(sql, organization_id, *_columns(key), head["last_position"], ids, texts)
    sql = f"""
    UPDATE agent_transcripts
    SET last_position = $5, size_bytes = $6, summary = $7,
        written_at_ms = GREATEST((extract(epoch FROM clock_timestamp()) * 1000)::bigint, written_at_ms + 1)
    WHERE {_THIS}
    """
    summary = head["summary"] if fold is None else fold(head["summary"])
    last = head["last_position"] + len(texts)
    await tx.execute(sql, organization_id, *_columns(key), last, size, summary)


async def load(tx: Transaction, organization_id: UUID, key: TranscriptKey) -> list[Entry]:
    """All entries, in the order in which they were written."""
    sql = f"SELECT entry FROM agent_transcript_entries WHERE {_THIS} ORDER BY position"
    return [json.loads(row["entry"]) for row in await tx.fetch(sql, organization_id, *_columns(key))]


async def delete(tx: Transaction, organization_id: UUID, key: TranscriptKey) -> None:
    """Remove a transcript; with a main one goes all that belongs to it."""
    for table in ("agent_transcript_entries", "agent_transcripts"):
        sql = f"""
        DELETE FROM {table}
        WHERE organization_id = $1 AND project = $2 AND transcript_id = $3 AND ($4 = '' OR subpath = $4)
        """
        await tx.execute(sql, organization_id, *_columns(key))


async def list_main(tx: Transaction, organization_id: UUID, project: str) -> list[Listed]:
    """The main transcripts of a project."""
    sql = """
    SELECT transcript_id, written_at_ms, summary FROM agent_transcripts
    WHERE organization_id = $1 AND project = $2 AND subpath = '' ORDER BY transcript_id
    """
    return [Listed(**row) for row in await tx.fetch(sql, organization_id, project)]


async def list_subpaths(tx: Transaction, organization_id: UUID, project: str, transcript_id: str) -> list[str]:
    """What belongs to a transcript."""
    sql = """
    SELECT subpath FROM agent_transcripts
    WHERE organization_id = $1 AND project = $2 AND transcript_id = $3 AND subpath <> '' ORDER BY subpath
    """
    return [row["subpath"] for row in await tx.fetch(sql, organization_id, project, transcript_id)]


def _columns(key: TranscriptKey) -> tuple[str, str, str]:
    return key.project, key.transcript_id, key.subpath
