"""The queries of what is looked after for all organizations, in system transactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.sessions.model import ENDED, Session
from stationmaster_server.sessions.store import COLUMNS, to_session


async def lock_idle(tx: Transaction, default_timeout: timedelta | None, limit: int) -> list[tuple[UUID, Session]]:
    """ACTIVE sessions past their time to live, longest idle first, with their organizations; their rows are locked.

    `default_timeout` is for those that have none of their own; None: they live on. Rows that somebody else has locked
    are left out. For a system transaction.
    """
    rows = await tx.fetch(
        f"""SELECT s.organization_id, {COLUMNS} FROM sessions s
             WHERE s.state = 'ACTIVE' AND s.updated_at < now() - COALESCE(s.idle_timeout, $1)
             ORDER BY s.updated_at LIMIT $2 FOR UPDATE OF s SKIP LOCKED""",
        default_timeout,
        limit,
    )
    return [(row["organization_id"], to_session(row)) for row in rows]


async def ended_among(tx: Transaction, session_ids: Sequence[UUID]) -> list[UUID]:
    """Which of these sessions, of any organization, are terminated or archived."""
    sql = "SELECT id FROM sessions WHERE id = ANY($1) AND state = ANY($2)"
    return [row["id"] for row in await tx.fetch(sql, session_ids, [str(state) for state in ENDED])]


async def forget_transcripts(tx: Transaction, most: int) -> int:
    """Delete transcripts of sessions that have ended, of any organization: their messages stay. Returns how many."""
    sql = """
    WITH ended AS (
        SELECT t.organization_id, t.project, t.transcript_id FROM agent_transcripts t
        JOIN sessions s ON s.organization_id = t.organization_id AND s.id::text = t.transcript_id
        WHERE s.state = ANY($1) LIMIT $2
    ), entries AS (
        DELETE FROM agent_transcript_entries e USING ended
        WHERE (e.organization_id, e.project, e.transcript_id)
            = (ended.organization_id, ended.project, ended.transcript_id)
    )
    DELETE FROM agent_transcripts t USING ended
    WHERE (t.organization_id, t.project, t.transcript_id) = (ended.organization_id, ended.project, ended.transcript_id)
    """
    tag = await tx.execute(sql, [str(state) for state in ENDED], most)
    return int(tag.split()[-1])


NEEDED_WORK = """EXISTS (
    SELECT FROM turns t WHERE t.organization_id = i.organization_id AND t.id = i.item_id AND t.finished_at IS NULL
)"""
"""For `work.retention`: an open turn is found, and ended, by the end of its work item (`abandoned`): that stays."""


async def abandoned(tx: Transaction, limit: int) -> list[tuple[Tenant, UUID, UUID]]:
    """Turns of all organizations that are open although nothing will run them any more: tenant, session, turn."""
    rows = await tx.fetch(
        """SELECT t.organization_id, t.user_id, t.session_id, t.id
           FROM turns t JOIN work_items w ON w.organization_id = t.organization_id AND w.item_id = t.id
           WHERE t.finished_at IS NULL AND w.finished_at < now() - interval '5 seconds'
           ORDER BY t.created_at LIMIT $1""",
        limit,
    )
    return [(Tenant(row["organization_id"], row["user_id"]), row["session_id"], row["id"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Replaced:
    """The deltas that one message stands for, by their sequences; none when `last` is 0."""

    organization_id: UUID
    session_id: UUID
    turn_id: UUID
    first: int
    last: int


async def lock_to_compact(tx: Transaction, older_than: timedelta, limit: int) -> list[Replaced]:
    """Of turns, of all organizations, that ended longer ago and have their deltas still: what their messages stand for.

    Their rows are locked; those that somebody else has locked are left out. For a system transaction.
    """
    rows = await tx.fetch(
        """WITH old AS (
               SELECT organization_id, session_id, id FROM turns
               WHERE finished_at < now() - $1::interval AND NOT compacted
               ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
           )
           SELECT old.organization_id, old.session_id, old.id, COALESCE(m.first_delta, 0), COALESCE(m.last_delta, 0)
           FROM old LEFT JOIN messages m ON m.organization_id = old.organization_id AND m.session_id = old.session_id
               AND m.turn_id = old.id AND m.last_delta > 0""",
        older_than,
        limit,
    )
    return [Replaced(*row) for row in rows]


async def compacted(tx: Transaction, turns: Sequence[tuple[UUID, UUID]]) -> None:
    """The deltas of these turns, by organization and id, are gone."""
    await tx.execute(
        """UPDATE turns t SET compacted = true FROM unnest($1::uuid[], $2::uuid[]) AS done(organization_id, id)
           WHERE t.organization_id = done.organization_id AND t.id = done.id""",
        [organization_id for organization_id, _ in turns],
        [turn_id for _, turn_id in turns],
    )
