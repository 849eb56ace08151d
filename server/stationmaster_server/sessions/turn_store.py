"""The queries of turns and their tool calls. Whoever changes a turn holds the lock of its session's row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from stationmaster_server.agents.runtime import Usage
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import NotFound
from stationmaster_server.identity.model import ToolPolicy
from stationmaster_server.identity.policy_store import above_sql, policies_from_json
from stationmaster_server.identity.quota_store import adding_sql
from stationmaster_server.identity.quotas import Slice
from stationmaster_server.sessions.model import (
    OPEN_TURNS,
    Ending,
    RecoveryPolicy,
    Turn,
    TurnState,
    turn_name,
)
from stationmaster_server.sessions.store import counters

_COLUMNS = """id, session_id, state, user_message, recovery, reason, error_message, attempts, step, first_sequence,
    last_sequence, input_tokens, output_tokens, cached_input_tokens, cost_micros, cost_estimated, model_calls,
    tool_calls, running_time, created_at, started_at, finished_at, prompt_version, prompt_variant"""
_OPEN = sorted(OPEN_TURNS)
# What is set aside of the day's running time and has not passed, of a turn that stops running ($1, $2). Part of the
# statement that says so: whoever ends a turn, and whatever became of its server, cannot forget it.
_GIVE_TIME_BACK = "WITH given_back AS ({})".format(
    adding_sql(
        """SELECT $1::uuid, subject_id, paid_on, 0, 0, 0, 0, clock_timestamp() - paid_until
           FROM turns, unnest(ARRAY[user_id, organization_id]) WITH ORDINALITY AS subjects(subject_id, position)
           WHERE organization_id = $1 AND id = $2 AND paid_until > clock_timestamp() ORDER BY position"""
    )
)


@dataclass(frozen=True, slots=True)
class Past:
    """Of a turn: the text that started it, and what was allowed it beyond its limits.

    `above`: the rules about tools of its owner and of the organization, as they are now.
    """

    input_text: str
    portions: Mapping[str, int]
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
        f"""SELECT input_text, portions, {above_sql("turns.organization_id", "turns.user_id")} AS above
           FROM turns WHERE organization_id = $1 AND id = $2""",
        tenant.organization_id,
        turn_id,
    )
    if row is None:
        raise RuntimeError(f"turn {turn_id} vanished while its session was locked")
    return Past(row["input_text"], row["portions"], policies_from_json(row["above"]))


async def start_turn(
    tx: Transaction, organization_id: UUID, turn_id: UUID, *, attempt: int, user_message: int, first_sequence: int
) -> None:
    """A worker begins the turn, or goes on with it."""
    await tx.execute(
        f"""{_GIVE_TIME_BACK}
           UPDATE turns SET state = 'RUNNING', attempts = $5, user_message = $3, paid_until = NULL,
               first_sequence = CASE WHEN first_sequence = 0 THEN $4 ELSE first_sequence END,
               started_at = coalesce(started_at, now())
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        turn_id,
        user_message,
        first_sequence,
        attempt,
    )


async def suspend_turn(tx: Transaction, organization_id: UUID, turn_id: UUID) -> None:
    """The turn waits for a permission."""
    await tx.execute(
        f"""{_GIVE_TIME_BACK}
           UPDATE turns SET state = 'AWAITING_PERMISSION', paid_until = NULL WHERE organization_id = $1 AND id = $2""",
        organization_id,
        turn_id,
    )


async def pay_time(tx: Transaction, organization_id: UUID, turn_id: UUID, time: Slice) -> timedelta:
    """A turn that runs may do so for so much longer; returns for how long in all."""
    left: timedelta = await tx.fetchval(
        """UPDATE turns SET paid_on = $4, paid_until = $3 +
               CASE WHEN paid_on = $4 THEN coalesce(paid_until, clock_timestamp()) ELSE clock_timestamp() END
           WHERE organization_id = $1 AND id = $2 RETURNING paid_until - clock_timestamp()""",
        organization_id,
        turn_id,
        time.length,
        time.day,
    )
    return left


async def set_prompt(tx: Transaction, organization_id: UUID, turn: Turn) -> None:
    """Which prompt the turn's instructions come from."""
    await tx.execute(
        "UPDATE turns SET prompt_version = $3, prompt_variant = $4 WHERE organization_id = $1 AND id = $2",
        organization_id,
        turn.id,
        turn.prompt_version,
        turn.prompt_variant,
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


async def next_step(tx: Transaction, organization_id: UUID, turn_id: UUID, step: int, usage: Usage) -> None:
    """A step is durable: `step` is the number of the model call to come, `usage` what was added."""
    await tx.execute(
        """UPDATE turns SET step = $3, input_tokens = input_tokens + $4, output_tokens = output_tokens + $5,
               cached_input_tokens = cached_input_tokens + $6, cost_micros = cost_micros + $7,
               cost_estimated = cost_estimated OR $8, model_calls = model_calls + $9, tool_calls = tool_calls + $10,
               running_time = running_time + $11
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        turn_id,
        step,
        *counters(usage),
    )


async def finish_turn(
    tx: Transaction,
    organization_id: UUID,
    turn: Turn,
    ending: Ending,
    last_sequence: int,
    used: Usage,
) -> None:
    """The turn has ended; `used` is that of its last step."""
    await tx.execute(
        f"""{_GIVE_TIME_BACK}
           UPDATE turns SET state = $3, reason = $4, error_message = $5, last_sequence = $6, finished_at = now(),
               step = $7, input_tokens = input_tokens + $8, output_tokens = output_tokens + $9,
               cached_input_tokens = cached_input_tokens + $10, cost_micros = cost_micros + $11,
               cost_estimated = cost_estimated OR $12, model_calls = model_calls + $13, tool_calls = tool_calls + $14,
               running_time = running_time + $15, paid_until = NULL
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        turn.id,
        ending.state,
        ending.reason,
        ending.message,
        last_sequence,
        turn.step,
        *counters(used),
    )


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
        prompt_version=row["prompt_version"],
        prompt_variant=row["prompt_variant"],
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
        running_time=row["running_time"],
    )
