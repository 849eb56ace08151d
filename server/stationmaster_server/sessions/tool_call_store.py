"""The queries of tool calls, of turns that are under way. Whoever changes one holds the lock of its session's row."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stationmaster_server.agents.runtime import ToolCall, ToolResult
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.sessions.model import ToolCallState, Turn


async def start_tool_call(tx: Transaction, organization_id: UUID, turn: Turn, step: int, call: ToolCall) -> None:
    """A call is about to run; one that was in flight when its server died begins anew."""
    await tx.execute(
        """INSERT INTO tool_calls (organization_id, turn_id, step, call_id, session_id, tool, arguments, state)
           VALUES ($1, $2, $3, $4, $5, $6, $7, 'RUNNING')
           ON CONFLICT (organization_id, turn_id, step, call_id)
           DO UPDATE SET arguments = excluded.arguments, started_at = now()""",
        organization_id,
        turn.id,
        step,
        call.call_id,
        turn.session_id,
        call.tool,
        call.arguments,
    )


async def finish_tool_call(tx: Transaction, organization_id: UUID, turn: Turn, step: int, result: ToolResult) -> None:
    """A call ended, or was not allowed to begin."""
    await tx.execute(
        """INSERT INTO tool_calls (organization_id, turn_id, step, call_id, session_id, tool, arguments, state, content,
                                   is_error, finished_at)
           VALUES ($1, $2, $3, $4, $5, $6, '{}', 'DONE', $7, $8, now())
           ON CONFLICT (organization_id, turn_id, step, call_id)
           DO UPDATE SET state = 'DONE', content = $7, is_error = $8, finished_at = now()""",
        organization_id,
        turn.id,
        step,
        result.call_id,
        turn.session_id,
        result.tool,
        result.content,
        result.is_error,
    )


async def tool_results(
    tx: Transaction, organization_id: UUID, turn_id: UUID, step: int
) -> tuple[dict[str, ToolResult], Sequence[str]]:
    """Of a step's calls: the results by call id, and the ids of those that were in flight."""
    rows = await tx.fetch(
        """SELECT call_id, tool, state, content, is_error FROM tool_calls
           WHERE organization_id = $1 AND turn_id = $2 AND step = $3""",
        organization_id,
        turn_id,
        step,
    )
    done = [row for row in rows if row["state"] == ToolCallState.DONE]
    results = {row["call_id"]: ToolResult(row["call_id"], row["tool"], row["content"], row["is_error"]) for row in done}
    return results, [row["call_id"] for row in rows if row["state"] == ToolCallState.RUNNING]
