"""The queries of turns and their tool calls. Whoever changes a turn holds the lock of its session's row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from stationmaster_server.agents.runtime import ToolCall, ToolResult, Usage
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import NotFound
from stationmaster_server.identity.model import ToolPolicy
from stationmaster_server.identity.policy_store import above_sql, policies_from_json
from stationmaster_server.identity.quotas import Reservation
from stationmaster_server.sessions.model import (
    OPEN_TURNS,
    Ending,
    RecoveryPolicy,
    ToolCallState,
    Turn,
    TurnState,
    turn_name,
)
from stationmaster_server.sessions.store import counters

_COLUMNS = """id, session_id, state, user_message, recovery, reason, error_message, attempts, step, first_sequence,
    last_sequence, input_tokens, output_tokens, cached_input_tokens, cost_micros, cost_estimated, model_calls,
    tool_calls, created_at, started_at, finished_at"""
_OPEN = sorted(OPEN_TURNS)


@dataclass(frozen=True, slots=True)
class Past:
    """Of a turn: the text that started it, how long it has run, what was allowed it beyond its limits, and what a call
    that was cut had set aside.

    `above`: the rules about tools of its owner and of the organization, as they are now.
    """

    input_text: str
    active_time: timedelta
    portions: Mapping[str, int]
    reservation: Reservation | None
    above: tuple[ToolPolicy, ...]


async def insert_turn(
    tx: Transaction,
    organization_id: UUID,
    turn: Turn,
    user_id: UUID,
    input_text: str,
) -> tuple[ToolPolicy, ...]:
    """A new turn; with `turn.user_message` 0 its text is stored as a message only when it begins.

    Returns the rules about tools of its owner and of the organization: a turn that begins at once needs them.
    """
    above = await tx.fetchval(
        f"""INSERT INTO turns (organization_id, id, session_id, user_id, state, input_text, user_message, recovery,
                              attempts, first_sequence, created_at, started_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
           RETURNING {above_sql("$1", "$4")}""",
        organization_id,
        turn.id,
        turn.session_id,
        user_id,
        turn.state,
        input_text,
        turn.user_message,
        turn.recovery,
        turn.attempts,
        turn.first_sequence,
        turn.created_at,
        turn.started_at,
    )
    return policies_from_json(above)


async def get_turn(tx: Transaction, organization_id: UUID, session_id: UUID, turn_id: UUID) -> Turn:
    """The turn. Raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {_COLUMNS} FROM turns WHERE organization_id = $1 AND id = $2 AND session_id = $3",
        organization_id,
        turn_id,
        session_id,
    )
    if row is None:
        raise NotFound("turn", turn_name(session_id, turn_id))
    return _turn(row)


async def open_turns(tx: Transaction, organization_id: UUID, session_id: UUID) -> list[Turn]:
    """The turns that have not ended, oldest first."""
    rows = await tx.fetch(
        f"""SELECT {_COLUMNS} FROM turns WHERE organization_id = $1 AND session_id = $2 AND state = ANY($3)
            ORDER BY created_at, id""",
        organization_id,
        session_id,
        _OPEN,
    )
    return [_turn(row) for row in rows]


_LISTING = Listing(
    fields={"state": Field("state", TurnState), "create_time": Field("created_at", datetime)},
    key="id",
    default_order="create_time desc",
    order_fields=["create_time"],
)


async def list_turns(
    tx: Transaction, organization_id: UUID, session_id: UUID, filter_text: str, order_by: str, page: PageRequest
) -> Page[Turn]:
    """A page of a session's turns."""
    clause = _LISTING.sql(filter_text, order_by, page, start=3)
    rows = await tx.fetch(
        f"""SELECT {_COLUMNS}, {clause.cursor_sql} FROM turns
            WHERE organization_id = $1 AND session_id = $2 AND {clause.where_sql} ORDER BY {clause.order_sql}""",
        organization_id,
        session_id,
        *clause.args,
    )
    return clause.page(rows, _turn)


async def past_of(tx: Transaction, tenant: Tenant, turn_id: UUID) -> Past:
    """What earlier attempts left."""
    row = await tx.fetchrow(
        f"""SELECT input_text, active_time, portions, reserved_micros, reserved_on,
                   {above_sql("turns.organization_id", "turns.user_id")} AS above
           FROM turns WHERE organization_id = $1 AND id = $2""",
        tenant.organization_id,
        turn_id,
    )
    if row is None:
        raise RuntimeError(f"turn {turn_id} vanished while its session was locked")
    reserved = row["reserved_micros"]
    reservation = Reservation(tenant, reserved, row["reserved_on"]) if reserved else None
    above = policies_from_json(row["above"])
    return Past(row["input_text"], row["active_time"], row["portions"], reservation, above)


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


async def start_turn(
    tx: Transaction, organization_id: UUID, turn_id: UUID, *, attempt: int, user_message: int, first_sequence: int
) -> None:
    """A worker begins the turn, or goes on with it."""
    await tx.execute(
        """UPDATE turns SET state = 'RUNNING', attempts = $5, user_message = $3,
               first_sequence = CASE WHEN first_sequence = 0 THEN $4 ELSE first_sequence END,
               started_at = coalesce(started_at, now())
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        turn_id,
        user_message,
        first_sequence,
        attempt,
    )


async def set_turn_state(tx: Transaction, organization_id: UUID, turn_id: UUID, state: TurnState) -> None:
    """The turn stands so, and has not ended."""
    await tx.execute(
        "UPDATE turns SET state = $3 WHERE organization_id = $1 AND id = $2", organization_id, turn_id, state
    )


async def set_reservation(
    tx: Transaction, organization_id: UUID, turn_id: UUID, reservation: Reservation | None
) -> None:
    """What is set aside for the model call under way, so that it is known after a crash; None: nothing any more."""
    await tx.execute(
        "UPDATE turns SET reserved_micros = $3, reserved_on = $4 WHERE organization_id = $1 AND id = $2",
        organization_id,
        turn_id,
        reservation.amount_micros if reservation else 0,
        reservation.day if reservation else None,
    )


async def grant_portion(tx: Transaction, organization_id: UUID, turn_id: UUID, limit: str) -> None:
    """Somebody allowed the turn as much as this limit once more."""
    await tx.execute(
        """UPDATE turns SET portions = portions || jsonb_build_object($3::text, coalesce((portions->>$3)::int, 0) + 1)
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        turn_id,
        limit,
    )


async def add_active_time(tx: Transaction, organization_id: UUID, turn_id: UUID, active_time: timedelta) -> None:
    """The turn has run so much longer, and now waits."""
    await tx.execute(
        "UPDATE turns SET active_time = active_time + $3 WHERE organization_id = $1 AND id = $2",
        organization_id,
        turn_id,
        active_time,
    )


async def set_ending(tx: Transaction, organization_id: UUID, turn_id: UUID, ending: str, reason: str) -> None:
    """How the running turn shall end, for its worker to read when it stops. The first word stands."""
    await tx.execute(
        "UPDATE turns SET ending = $3, reason = $4 WHERE organization_id = $1 AND id = $2 AND ending = ''",
        organization_id,
        turn_id,
        ending,
        reason,
    )


async def get_ending(tx: Transaction, organization_id: UUID, turn_id: UUID) -> tuple[str, str]:
    """How the turn shall end and why; empty when nobody said."""
    row = await tx.fetchrow(
        "SELECT ending, reason FROM turns WHERE organization_id = $1 AND id = $2", organization_id, turn_id
    )
    return (row["ending"], row["reason"]) if row else ("", "")


async def next_step(
    tx: Transaction, organization_id: UUID, turn_id: UUID, step: int, usage: Usage, active_time: timedelta
) -> None:
    """A step is durable: `step` is the number of the model call to come, `usage` and `active_time` what was added."""
    await tx.execute(
        """UPDATE turns SET step = $3, input_tokens = input_tokens + $4, output_tokens = output_tokens + $5,
               cached_input_tokens = cached_input_tokens + $6, cost_micros = cost_micros + $7,
               cost_estimated = cost_estimated OR $8, model_calls = model_calls + $9, tool_calls = tool_calls + $10,
               active_time = active_time + $11
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        turn_id,
        step,
        *counters(usage),
        active_time,
    )


async def finish_turn(
    tx: Transaction,
    organization_id: UUID,
    turn: Turn,
    ending: Ending,
    last_sequence: int,
    used: Usage,
    active_time: timedelta,
) -> None:
    """The turn has ended; `used` and `active_time` are those of its last step."""
    await tx.execute(
        """UPDATE turns SET state = $3, reason = $4, error_message = $5, last_sequence = $6, finished_at = now(),
               step = $7, input_tokens = input_tokens + $8, output_tokens = output_tokens + $9,
               cached_input_tokens = cached_input_tokens + $10, cost_micros = cost_micros + $11,
               cost_estimated = cost_estimated OR $12, model_calls = model_calls + $13, tool_calls = tool_calls + $14,
               active_time = active_time + $15, reserved_micros = 0, reserved_on = NULL
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        turn.id,
        ending.state,
        ending.reason,
        ending.message,
        last_sequence,
        turn.step,
        *counters(used),
        active_time,
    )


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


def _turn(row: Record) -> Turn:
    return Turn(
        id=row["id"],
        session_id=row["session_id"],
        state=TurnState(row["state"]),
        user_message=row["user_message"],
        recovery=RecoveryPolicy(row["recovery"]),
        reason=row["reason"],
        error_message=row["error_message"],
        usage=usage_of(row),
        attempts=row["attempts"],
        step=row["step"],
        first_sequence=row["first_sequence"],
        last_sequence=row["last_sequence"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def usage_of(row: Record) -> Usage:
    """The usage columns of a turn or session."""
    return Usage(
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_input_tokens=row["cached_input_tokens"],
        cost_micros=row["cost_micros"],
        cost_estimated=row["cost_estimated"],
        model_calls=row["model_calls"],
        tool_calls=row["tool_calls"],
    )
