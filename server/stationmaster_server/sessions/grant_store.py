"""The queries of what people have allowed beyond the rules. Whoever grants holds the lock of the session's row."""

from __future__ import annotations

from uuid import UUID

from stationmaster_server.db.transaction import Transaction


async def grant_tool(tx: Transaction, organization_id: UUID, session_id: UUID, tool: str) -> None:
    """Somebody allowed the tool for the rest of the session."""
    await tx.execute(
        """UPDATE sessions SET granted_tools = array_append(granted_tools, $3)
            WHERE organization_id = $1 AND id = $2 AND NOT granted_tools @> ARRAY[$3]""",
        organization_id,
        session_id,
        tool,
    )


async def grant_session_portion(tx: Transaction, organization_id: UUID, session_id: UUID, limit: str) -> None:
    """Somebody allowed the session as much as this limit once more."""
    await tx.execute(
        """UPDATE sessions
              SET portions = portions || jsonb_build_object($3::text, coalesce((portions->>$3)::int, 0) + 1)
            WHERE organization_id = $1 AND id = $2""",
        organization_id,
        session_id,
        limit,
    )


async def grant_turn_portion(tx: Transaction, organization_id: UUID, turn_id: UUID, limit: str) -> None:
    """Somebody allowed the turn as much as this limit once more."""
    await tx.execute(
        """UPDATE turns SET portions = portions || jsonb_build_object($3::text, coalesce((portions->>$3)::int, 0) + 1)
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        turn_id,
        limit,
    )
