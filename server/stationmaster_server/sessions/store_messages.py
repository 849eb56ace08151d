"""The queries of messages. Whoever appends one holds the lock of its session's row, or takes it by appending."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument, NotFound, Reason
from stationmaster_server.sessions.message_json import (
    parts_from_json,
    parts_to_json,
    provenance_from_json,
    provenance_to_json,
    searchable_text,
)
from stationmaster_server.sessions.model import Message, MessageRole, session_name
from stationmaster_server.sessions.store import Row

COLUMNS = "session_id, number, turn_id, role, parts, created_at, interrupted, provenance, first_delta, last_delta"

_APPEND = """
WITH session AS (
    UPDATE sessions
       SET last_message = last_message + 1, message_count = message_count + 1, updated_at = now()
     WHERE organization_id = $1 AND id = $2
    RETURNING last_message
)
INSERT INTO messages (organization_id, session_id, number, turn_id, role, parts, text, interrupted, provenance,
                      first_delta, last_delta)
SELECT $1, $2, last_message, $3, $4, $5, $6, $7, $8, $9, $10 FROM session
RETURNING number, created_at
"""


async def append_message(tx: Transaction, organization_id: UUID, message: Message) -> Message:
    """Store a message under the session's next number; the `number` and `created_at` given are not looked at.

    Raises NotFound when there is no such session.
    """
    row = await tx.fetchrow(
        _APPEND,
        organization_id,
        message.session_id,
        message.turn_id,
        message.role,
        parts_to_json(message.parts),
        searchable_text(message.parts),
        message.interrupted,
        provenance_to_json(message.provenance) if message.provenance else None,
        message.first_delta,
        message.last_delta,
    )
    if row is None:
        raise NotFound("session", session_name(message.session_id))
    return Message(
        session_id=message.session_id,
        number=row["number"],
        turn_id=message.turn_id,
        role=message.role,
        parts=message.parts,
        created_at=row["created_at"],
        interrupted=message.interrupted,
        provenance=message.provenance,
        first_delta=message.first_delta,
        last_delta=message.last_delta,
    )


async def delete_turn_messages(tx: Transaction, organization_id: UUID, session_id: UUID, turn_id: UUID) -> int:
    """Delete the messages of a turn that is rolled back; returns how many. Their numbers are not given again.

    A turn's messages are the newest of its session, so the search for them ends where older turns begin.
    """
    count: int = await tx.fetchval(
        """
        WITH gone AS (
            DELETE FROM messages
             WHERE organization_id = $1 AND session_id = $2 AND turn_id = $3
               AND number >= (SELECT NULLIF(user_message, 0) FROM turns WHERE organization_id = $1 AND id = $3)
            RETURNING number
        ), session AS (
            UPDATE sessions
               SET message_count = message_count - (SELECT count(*) FROM gone), updated_at = now()
             WHERE organization_id = $1 AND id = $2
        )
        SELECT count(*) FROM gone
        """,
        organization_id,
        session_id,
        turn_id,
    )
    return count


async def last_message(tx: Transaction, organization_id: UUID, session_id: UUID) -> Message | None:
    """The newest message; None while there is none."""
    row = await tx.fetchrow(
        f"""SELECT {COLUMNS} FROM messages WHERE organization_id = $1 AND session_id = $2
            ORDER BY number DESC LIMIT 1""",
        organization_id,
        session_id,
    )
    return None if row is None else to_message(row)


_SHOWN = COLUMNS.replace("provenance", "NULL::json AS provenance")

# Reads backwards from the newest message to the first of the window and no further; a summary has an index of its own.
# COALESCE stands inside the subquery: under row-level security only what is leakproof becomes an index condition.
WINDOW = f"""
SELECT {_SHOWN} FROM (
    (SELECT {COLUMNS} FROM messages
      WHERE organization_id = $1 AND session_id = $2 AND role = 'SYSTEM' AND $4
      ORDER BY number DESC LIMIT 1)
    UNION ALL
    (SELECT {COLUMNS} FROM messages
      WHERE organization_id = $1 AND session_id = $2 AND role <> 'SYSTEM'
        AND number >= (SELECT COALESCE(
            (SELECT number FROM messages
              WHERE organization_id = $1 AND session_id = $2 AND role = 'USER'
              ORDER BY number DESC OFFSET $3 LIMIT 1), 0)))
) AS shown
ORDER BY role <> 'SYSTEM', number
"""


async def window(
    tx: Transaction, organization_id: UUID, session_id: UUID, pairs: int, *, summary: bool = False
) -> list[Message]:
    """The last `pairs` pairs, oldest first; with `summary` the newest SYSTEM message stands before them.

    A pair is a message of the user with all that answers it, so no tool call is parted from its result. The newest pair
    may still lack its answer. Without provenance, which no model is shown.
    """
    rows = await tx.fetch(WINDOW, organization_id, session_id, max(pairs, 1) - 1, summary)
    return [to_message(row) for row in rows]


async def copy_messages(tx: Transaction, organization_id: UUID, source: UUID, target: UUID, up_to: int) -> int:
    """Copy the messages of one session up to a number into another that is new; returns how many.

    They keep number, time and provenance; turns and sequences are the source's and are not copied.
    """
    count: int = await tx.fetchval(
        """
        WITH copied AS (
            INSERT INTO messages (organization_id, session_id, number, role, parts, text, interrupted, provenance,
                                  created_at)
            SELECT organization_id, $3, number, role, parts, text, interrupted, provenance, created_at
              FROM messages
             WHERE organization_id = $1 AND session_id = $2 AND number <= $4
            RETURNING number
        )
        UPDATE sessions
           SET message_count = (SELECT count(*) FROM copied),
               last_message = COALESCE((SELECT max(number) FROM copied), 0)
         WHERE organization_id = $1 AND id = $3
        RETURNING message_count
        """,
        organization_id,
        source,
        target,
        up_to,
    )
    return count


async def get_message(tx: Transaction, organization_id: UUID, session_id: UUID, number: int) -> Message | None:
    """The message of this number; None when there is none."""
    row = await tx.fetchrow(
        f"SELECT {COLUMNS} FROM messages WHERE organization_id = $1 AND session_id = $2 AND number = $3",
        organization_id,
        session_id,
        number,
    )
    return None if row is None else to_message(row)


# Numbers grow with time, so the order by time is the order of the primary key.
_LISTING = Listing(
    {
        "role": Field("role", MessageRole),
        "turn": Field("COALESCE('sessions/' || session_id || '/turns/' || turn_id, '')", str),
        "create_time": Field("created_at", datetime),
        "number": Field("number", int),
    },
    key="number",
    key_type=int,
    default_order="number",
    order_fields=("number",),
)
_ORDERS = {"": "number", "create_time": "number", "create_time desc": "number desc"}


async def list_messages(
    tx: Transaction, organization_id: UUID, session_id: UUID, filter_text: str, order_by: str, page: PageRequest
) -> Page[Message]:
    """A page of a session's messages. Raises InvalidArgument."""
    order = _ORDERS.get(" ".join(order_by.split()))
    if order is None:
        raise InvalidArgument.field("order_by", "expected `create_time` or `create_time desc`", Reason.INVALID_ORDER_BY)
    clause = _LISTING.sql(filter_text, order, page, start=3)
    rows = await tx.fetch(
        f"""SELECT {COLUMNS}, {clause.cursor_sql} FROM messages
             WHERE organization_id = $1 AND session_id = $2 AND {clause.where_sql}
             ORDER BY {clause.order_sql}""",
        organization_id,
        session_id,
        *clause.args,
    )
    return clause.page(rows, to_message)


def to_message(row: Row) -> Message:
    """The message in a row of `COLUMNS`."""
    provenance = row["provenance"]
    return Message(
        session_id=row["session_id"],
        number=row["number"],
        turn_id=row["turn_id"],
        role=MessageRole(row["role"]),
        parts=parts_from_json(row["parts"]),
        created_at=row["created_at"],
        interrupted=row["interrupted"],
        provenance=None if provenance is None else provenance_from_json(provenance),
        first_delta=row["first_delta"],
        last_delta=row["last_delta"],
    )
