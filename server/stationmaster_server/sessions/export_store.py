"""Messages of all sessions that somebody sees, in the order of their primary key."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.sessions.model import Message, MessageRole
from stationmaster_server.sessions.store_messages import COLUMNS, to_message

LISTING = Listing(
    {
        "session": Field("'sessions/' || m.session_id", str),
        "session_id": Field("m.session_id", UUID),
        "role": Field("m.role", MessageRole),
        "create_time": Field("m.created_at", datetime),
        "number": Field("m.number", int),
    },
    key="m.number",
    key_type=int,
    default_order="session_id",
    order_fields=["session_id"],
)
_OF_MESSAGES = ", ".join(f"m.{column}" for column in COLUMNS.split(", "))


async def list_all_messages(
    tx: Transaction, organization_id: UUID, owner: UUID | None, filter_text: str, page: PageRequest
) -> Page[Message]:
    """A page of the messages of every session of `owner`; None: of the organization. Raises InvalidArgument."""
    clause = LISTING.sql(filter_text, "", page, start=3)
    rows = await tx.fetch(
        f"""SELECT {_OF_MESSAGES}, {clause.cursor_sql}
              FROM messages m JOIN sessions s ON s.organization_id = m.organization_id AND s.id = m.session_id
             WHERE m.organization_id = $1 AND ($2::uuid IS NULL OR s.user_id = $2) AND {clause.where_sql}
             ORDER BY {clause.order_sql}""",
        organization_id,
        owner,
        *clause.args,
    )
    return clause.page(rows, to_message)
