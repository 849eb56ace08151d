"""The queries of permission requests. Whoever changes one holds the lock of its session's row."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.agents.model import OnPermissionTimeout, PermissionSettings
from stationmaster_server.agents.runtime import ToolCall
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import NotFound
from stationmaster_server.sessions.model import (
    Breach,
    PermissionDecision,
    PermissionRequest,
    PermissionState,
    Session,
    Turn,
    permission_name,
)

COLUMNS = """id, session_id, turn_id, call_id, tool, arguments, limit_name, limit_value, used_value, state,
    decision, message, edited_arguments, resolved_by, on_timeout, created_at, resolved_at, expires_at"""

# What stands in a request about a limit in the place of its call.
NO_CALL = ToolCall("", "", {})


async def insert(
    tx: Transaction,
    organization_id: UUID,
    session: Session,
    turn: Turn,
    asks: ToolCall | Breach,
    settings: PermissionSettings,
) -> PermissionRequest:
    """A request that waits for an answer, to its deadline unless the settings say to wait for ever."""
    call, breach = (NO_CALL, asks) if isinstance(asks, Breach) else (asks, None)
    deadline = None if settings.on_timeout is OnPermissionTimeout.WAIT else settings.deadline
    row = await tx.fetchrow(
        f"""INSERT INTO permission_requests (organization_id, id, session_id, turn_id, user_id, step, call_id, tool,
                                             arguments, limit_name, limit_value, used_value, state, on_timeout,
                                             expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $12, $13, $14, 'PENDING', $10, now() + $11::interval)
            RETURNING {COLUMNS}""",
        organization_id,
        new_id(),
        session.id,
        turn.id,
        session.user_id,
        turn.step,
        call.call_id,
        call.tool,
        call.arguments,
        settings.on_timeout,
        deadline,
        breach and breach.limit,
        breach and breach.limit_value,
        breach and breach.used_value,
    )
    if row is None:
        raise RuntimeError("INSERT .. RETURNING gave no row")
    return to_request(row)


async def get(tx: Transaction, organization_id: UUID, session_id: UUID, request_id: UUID) -> PermissionRequest:
    """The request. Raises NotFound."""
    row = await tx.fetchrow(
        f"SELECT {COLUMNS} FROM permission_requests WHERE organization_id = $1 AND id = $2 AND session_id = $3",
        organization_id,
        request_id,
        session_id,
    )
    if row is None:
        raise NotFound("permission request", permission_name(session_id, request_id))
    return to_request(row)


_LISTING = Listing(
    fields={
        "state": Field("state", PermissionState),
        "tool": Field("tool", str),
        "create_time": Field("created_at", datetime),
    },
    key="id",
    default_order="create_time",
    order_fields=["create_time"],
)


async def list_requests(
    tx: Transaction,
    organization_id: UUID,
    session_id: UUID | None,
    owner: UUID | None,
    filter_text: str,
    order_by: str,
    page: PageRequest,
) -> Page[PermissionRequest]:
    """A page of the requests of a session, or of all sessions of an owner (None: of everybody)."""
    clause = _LISTING.sql(filter_text, order_by, page, start=4)
    rows = await tx.fetch(
        f"""SELECT {COLUMNS}, {clause.cursor_sql} FROM permission_requests
            WHERE organization_id = $1 AND ($2::uuid IS NULL OR session_id = $2) AND ($3::uuid IS NULL OR user_id = $3)
              AND {clause.where_sql} ORDER BY {clause.order_sql}""",
        organization_id,
        session_id,
        owner,
        *clause.args,
    )
    return clause.page(rows, to_request)


async def resolve(
    tx: Transaction,
    organization_id: UUID,
    request_id: UUID,
    state: PermissionState,
    decision: PermissionDecision | None,
    *,
    message: str = "",
    edited_arguments: dict[str, Any] | None = None,
    resolved_by: UUID | None = None,
) -> PermissionRequest | None:
    """Answer a request that waits; None when it does not wait any more (compare and set)."""
    row = await tx.fetchrow(
        f"""UPDATE permission_requests
            SET state = $3, decision = $4, message = $5, edited_arguments = $6, resolved_by = $7, resolved_at = now()
            WHERE organization_id = $1 AND id = $2 AND state = 'PENDING'
            RETURNING {COLUMNS}""",
        organization_id,
        request_id,
        state,
        decision,
        message,
        edited_arguments,
        resolved_by,
    )
    return None if row is None else to_request(row)


async def withdraw(tx: Transaction, organization_id: UUID, turn_id: UUID) -> list[PermissionRequest]:
    """The turn has ended: what still waits is withdrawn."""
    rows = await tx.fetch(
        f"""UPDATE permission_requests SET state = 'WITHDRAWN', resolved_at = now()
            WHERE organization_id = $1 AND turn_id = $2 AND state = 'PENDING' RETURNING {COLUMNS}""",
        organization_id,
        turn_id,
    )
    return [to_request(row) for row in rows]


async def of_turn(tx: Transaction, organization_id: UUID, turn_id: UUID, step: int) -> list[PermissionRequest]:
    """The requests of a step, in the order in which they were made."""
    rows = await tx.fetch(
        f"""SELECT {COLUMNS} FROM permission_requests
            WHERE organization_id = $1 AND turn_id = $2 AND step = $3 ORDER BY id""",
        organization_id,
        turn_id,
        step,
    )
    return [to_request(row) for row in rows]


async def waiting(tx: Transaction, organization_id: UUID, turn_id: UUID) -> list[PermissionRequest]:
    """The requests of a turn that still wait."""
    rows = await tx.fetch(
        f"""SELECT {COLUMNS} FROM permission_requests
            WHERE organization_id = $1 AND turn_id = $2 AND state = 'PENDING' ORDER BY id""",
        organization_id,
        turn_id,
    )
    return [to_request(row) for row in rows]


async def due(tx: Transaction, limit: int) -> list[tuple[UUID, UUID, PermissionRequest]]:
    """Requests of all organizations whose deadline has passed, with the organization and the owner of the session."""
    rows = await tx.fetch(
        f"""SELECT organization_id, user_id, {COLUMNS} FROM permission_requests
            WHERE state = 'PENDING' AND expires_at < now() ORDER BY expires_at LIMIT $1""",
        limit,
    )
    return [(row["organization_id"], row["user_id"], to_request(row)) for row in rows]


def to_request(row: Record) -> PermissionRequest:
    """The request in a row of `COLUMNS`."""
    return PermissionRequest(
        id=row["id"],
        session_id=row["session_id"],
        turn_id=row["turn_id"],
        call=ToolCall(row["call_id"], row["tool"], row["arguments"]),
        state=PermissionState(row["state"]),
        decision=PermissionDecision(row["decision"]) if row["decision"] else None,
        message=row["message"],
        edited_arguments=row["edited_arguments"],
        resolved_by=row["resolved_by"],
        on_timeout=OnPermissionTimeout(row["on_timeout"]),
        created_at=row["created_at"],
        resolved_at=row["resolved_at"],
        expires_at=row["expires_at"],
        breach=Breach(row["limit_name"], row["limit_value"], row["used_value"]) if row["limit_name"] else None,
    )
