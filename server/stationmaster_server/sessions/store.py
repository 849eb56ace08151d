"""The queries of sessions. `owner` None means: all of the organization (owners and admins)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

from stationmaster_server.agents.model import AgentSpec, Limits, ToolPolicy
from stationmaster_server.agents.runtime import Usage
from stationmaster_server.agents.spec_json import limits_from_json, limits_to_json, spec_from_json, spec_to_json
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import NotFound
from stationmaster_server.events.model import NewEvent
from stationmaster_server.identity.policy_store import policies_from_json, policies_to_json
from stationmaster_server.sessions.model import Session, SessionState, session_name


class Row(Protocol):
    """A row of a query, by column name."""

    def __getitem__(self, column: str, /) -> Any:
        """The value of a column."""


COLUMNS = """
    s.id, s.user_id, s.display_name, s.state, s.state_reason, s.agent_id, s.spec::text AS spec,
    s.tool_policies::text AS tool_policies, s.limits::text AS limits, s.labels,
    s.idle_timeout, s.parent_session_id, s.parent_message, s.granted_tools, s.portions, s.input_tokens, s.output_tokens,
    s.cached_input_tokens, s.cost_micros, s.cost_estimated, s.model_calls, s.tool_calls, s.running_time,
    s.message_count, s.current_turn_id, s.version, s.created_at, s.updated_at,
    (SELECT last_sequence FROM streams
      WHERE organization_id = s.organization_id AND stream_id = s.id) AS last_sequence"""
_ONE = f"""SELECT {COLUMNS} FROM sessions s
            WHERE s.organization_id = $1 AND s.id = $2 AND ($3::uuid IS NULL OR s.user_id = $3)"""


# A stream that begins is nobody else's yet: no lock to take, no reader to tell. So the session, its stream and the
# stream's first event are one round trip instead of three.
_INSERT = """
WITH stream AS (
    INSERT INTO streams (organization_id, stream_id, last_sequence) VALUES ($1, $2, 1)
), event AS (
    INSERT INTO events (organization_id, stream_id, sequence, created_at, kind, body)
    VALUES ($1, $2, 1, now(), $14, $15)
)
INSERT INTO sessions (organization_id, id, user_id, display_name, state, agent_id, spec, tool_policies, limits, labels,
                      idle_timeout, parent_session_id, parent_message)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
RETURNING created_at
"""


async def insert_session(tx: Transaction, organization_id: UUID, session: Session, first: NewEvent) -> Session:
    """A new session, and its stream with its first event; returns it with its times, which are the database's."""
    moment = await tx.fetchval(
        _INSERT,
        organization_id,
        session.id,
        session.user_id,
        session.display_name,
        session.state,
        session.agent_id,
        spec_to_json(session.spec),
        policies_to_json(session.tool_policies),
        limits_to_json(session.limits),
        session.labels,
        session.idle_timeout,
        session.parent_session_id,
        session.parent_message,
        first.kind,
        first.body,
    )
    return replace(session, last_sequence=1, etag=etag(1), created_at=moment, updated_at=moment)


async def get_session(tx: Transaction, organization_id: UUID, session_id: UUID, owner: UUID | None) -> Session:
    """The session. Raises NotFound alike for one that is missing and one that is somebody else's."""
    return _found(await tx.fetchrow(_ONE, organization_id, session_id, owner), session_id)


async def require_session(tx: Transaction, organization_id: UUID, session_id: UUID, owner: UUID | None) -> None:
    """Raises NotFound as `get_session`, and reads nothing else."""
    known = await tx.fetchval(
        "SELECT true FROM sessions WHERE organization_id = $1 AND id = $2 AND ($3::uuid IS NULL OR user_id = $3)",
        organization_id,
        session_id,
        owner,
    )
    if not known:
        raise NotFound("session", session_name(session_id))


async def lock_session(tx: Transaction, organization_id: UUID, session_id: UUID, owner: UUID | None) -> Session:
    """The session, with its row locked to the transaction's end. Raises NotFound as `get_session`."""
    return _found(await tx.fetchrow(f"{_ONE} FOR UPDATE OF s", organization_id, session_id, owner), session_id)


async def lock_again(tx: Transaction, organization_id: UUID, session: Session) -> Session:
    """The session as a worker knows it, its row locked, with what may have changed meanwhile. Raises NotFound."""
    row = await tx.fetchrow(
        """SELECT state, state_reason, current_turn_id FROM sessions WHERE organization_id = $1 AND id = $2
           FOR UPDATE""",
        organization_id,
        session.id,
    )
    if row is None:
        raise NotFound("session", session_name(session.id))
    return replace(
        session,
        state=SessionState(row["state"]),
        state_reason=row["state_reason"],
        current_turn_id=row["current_turn_id"],
    )


async def free_session(
    tx: Transaction,
    organization_id: UUID,
    session_id: UUID,
    turn_id: UUID,
    used: Usage,
    *,
    state_if_waiting: SessionState,
    state_if_idle: SessionState,
) -> SessionState:
    """Count what the last step of the session's turn used, and hand the session to the next turn that waits.

    Returns the state that follows: `state_if_waiting` with a next turn, `state_if_idle` without.
    """
    row = await tx.fetchrow(
        """WITH next AS (
               SELECT id FROM turns
                WHERE organization_id = $1 AND session_id = $2 AND finished_at IS NULL AND id <> $3
                ORDER BY created_at, id LIMIT 1
           )
           UPDATE sessions
              SET input_tokens = input_tokens + $4, output_tokens = output_tokens + $5,
                  cached_input_tokens = cached_input_tokens + $6, cost_micros = cost_micros + $7,
                  cost_estimated = cost_estimated OR $8, model_calls = model_calls + $9, tool_calls = tool_calls + $10,
                  running_time = running_time + $11,
                  state = CASE WHEN EXISTS (SELECT FROM next) THEN $12 ELSE $13 END,
                  current_turn_id = (SELECT id FROM next), updated_at = now()
            WHERE organization_id = $1 AND id = $2
            RETURNING state""",
        organization_id,
        session_id,
        turn_id,
        *counters(used),
        state_if_waiting,
        state_if_idle,
    )
    if row is None:
        raise NotFound("session", session_name(session_id))
    return SessionState(row["state"])


async def sessions_using(tx: Transaction, caller: Caller, agent_id: str) -> int:
    """How many sessions of the organization name the agent and have not ended."""
    count: int = await tx.fetchval(
        """SELECT count(*) FROM sessions
            WHERE organization_id = $1 AND agent_id = $2 AND agent_id <> ''
              AND state NOT IN ('TERMINATED', 'ARCHIVED')""",
        caller.tenant.organization_id,
        agent_id,
    )
    return count


async def update_session(tx: Transaction, organization_id: UUID, session: Session) -> Session:
    """Write the fields that callers change, of a session whose row is locked; returns it with its new etag."""
    row = await tx.fetchrow(
        """UPDATE sessions
              SET display_name = $3, spec = $4, tool_policies = $5, limits = $6, labels = $7, idle_timeout = $8,
                  version = version + 1, updated_at = now()
            WHERE organization_id = $1 AND id = $2
            RETURNING version, updated_at""",
        organization_id,
        session.id,
        session.display_name,
        spec_to_json(session.spec),
        policies_to_json(session.tool_policies),
        limits_to_json(session.limits),
        session.labels,
        session.idle_timeout,
    )
    if row is None:
        raise NotFound("session", session_name(session.id))
    return replace(session, etag=etag(row["version"]), updated_at=row["updated_at"])


async def set_state(
    tx: Transaction,
    organization_id: UUID,
    session_id: UUID,
    state: SessionState,
    *,
    reason: str = "",
    current_turn_id: UUID | None = None,
) -> None:
    """Write a state that `transition` allowed, with the turn that runs in it."""
    await tx.execute(
        """UPDATE sessions SET state = $3, state_reason = $4, current_turn_id = $5, updated_at = now()
            WHERE organization_id = $1 AND id = $2""",
        organization_id,
        session_id,
        state,
        reason,
        current_turn_id,
    )


async def add_usage(tx: Transaction, organization_id: UUID, session_id: UUID, usage: Usage) -> None:
    """Count what a step of a turn used."""
    await tx.execute(
        """UPDATE sessions
              SET input_tokens = input_tokens + $3, output_tokens = output_tokens + $4,
                  cached_input_tokens = cached_input_tokens + $5, cost_micros = cost_micros + $6,
                  cost_estimated = cost_estimated OR $7, model_calls = model_calls + $8, tool_calls = tool_calls + $9,
                  running_time = running_time + $10
            WHERE organization_id = $1 AND id = $2""",
        organization_id,
        session_id,
        *counters(usage),
    )


LISTING = Listing(
    {
        "state": Field("s.state", SessionState),
        "agent": Field("CASE s.agent_id WHEN '' THEN '' ELSE 'agents/' || s.agent_id END", str),
        "user": Field("'users/' || s.user_id", str),
        "display_name": Field("s.display_name", str),
        "parent_session": Field("COALESCE('sessions/' || s.parent_session_id, '')", str),
        "create_time": Field("s.created_at", datetime),
        "update_time": Field("s.updated_at", datetime),
        "labels": Field("s.labels", dict),
    },
    key="s.id",
    default_order="create_time desc",
    order_fields=("state", "agent", "user", "display_name", "parent_session", "create_time", "update_time"),
)


async def list_sessions(
    tx: Transaction,
    organization_id: UUID,
    owner: UUID | None,
    filter_text: str,
    order_by: str,
    page: PageRequest,
    *,
    archived: bool = False,
) -> Page[Session]:
    """A page of the sessions that `owner` sees; archived ones only when asked for. Raises InvalidArgument."""
    clause = LISTING.sql(filter_text, order_by, page, start=4)
    rows = await tx.fetch(
        f"""SELECT {COLUMNS}, {clause.cursor_sql} FROM sessions s
             WHERE s.organization_id = $1 AND ($2::uuid IS NULL OR s.user_id = $2)
               AND ($3 OR s.state <> 'ARCHIVED') AND {clause.where_sql}
             ORDER BY {clause.order_sql}""",
        organization_id,
        owner,
        archived,
        *clause.args,
    )
    return clause.page(rows, to_session)


def _found(row: Row | None, session_id: UUID) -> Session:
    if row is None:
        raise NotFound("session", session_name(session_id))
    return to_session(row)


# Many sessions share few specifications, and what these make is immutable: it is read from JSON once.
@lru_cache(maxsize=256)
def _spec(text: str) -> AgentSpec:
    return spec_from_json(json.loads(text))


@lru_cache(maxsize=256)
def _policies(text: str) -> tuple[ToolPolicy, ...]:
    return policies_from_json(json.loads(text))


@lru_cache(maxsize=256)
def _limits(text: str) -> Limits:
    return limits_from_json(json.loads(text))


def to_session(row: Row) -> Session:
    """The session in a row of the columns above."""
    return Session(
        id=row["id"],
        user_id=row["user_id"],
        display_name=row["display_name"],
        state=SessionState(row["state"]),
        state_reason=row["state_reason"],
        agent_id=row["agent_id"],
        spec=_spec(row["spec"]),
        tool_policies=_policies(row["tool_policies"]),
        limits=_limits(row["limits"]),
        labels=row["labels"],
        idle_timeout=row["idle_timeout"],
        parent_session_id=row["parent_session_id"],
        parent_message=row["parent_message"],
        granted_tools=tuple(row["granted_tools"]),
        portions=row["portions"],
        usage=Usage(
            row["input_tokens"],
            row["output_tokens"],
            row["cached_input_tokens"],
            row["cost_micros"],
            row["cost_estimated"],
            row["model_calls"],
            row["tool_calls"],
            row["running_time"],
        ),
        message_count=row["message_count"],
        last_sequence=row["last_sequence"] or 0,
        current_turn_id=row["current_turn_id"],
        etag=etag(row["version"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def etag(version: int) -> str:
    """A version as clients see it."""
    return f'"{version}"'


def counters(usage: Usage) -> tuple[object, ...]:
    """The arguments of a statement that adds to the usage columns, in their order."""
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_input_tokens,
        usage.cost_micros,
        usage.cost_estimated,
        usage.model_calls,
        usage.tool_calls,
        usage.running_time,
    )
