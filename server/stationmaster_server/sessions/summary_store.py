"""The queries behind an overview of sessions. `owner` None means: all of the organization."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.mcp.builtin.figures import SessionFigures

_MINE = "organization_id = $1 AND ($2::uuid IS NULL OR user_id = $2)"


async def summary(tx: Transaction, organization_id: UUID, owner: UUID | None) -> SessionFigures:
    """How many sessions are in each state, how many turns are open, and who waits for a permission."""
    of = (organization_id, owner)
    sessions = await tx.fetch(f"SELECT state, count(*) FROM sessions WHERE {_MINE} GROUP BY state ORDER BY state", *of)
    turns = await tx.fetch(
        f"SELECT state, count(*) FROM turns WHERE {_MINE} AND finished_at IS NULL GROUP BY state ORDER BY state", *of
    )
    waiting: Any = await tx.fetchrow(
        f"""SELECT count(*) AS count, min(created_at) AS oldest FROM permission_requests
            WHERE {_MINE} AND state = 'PENDING'""",
        *of,
    )
    return SessionFigures(
        {row["state"]: row["count"] for row in sessions},
        {row["state"]: row["count"] for row in turns},
        waiting["count"],
        waiting["oldest"],
    )
