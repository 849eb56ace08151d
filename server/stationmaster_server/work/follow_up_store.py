"""What is still to be done about items that have ended, however they did: of those submitted with `follow_up`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.work.model import WorkItem
from stationmaster_server.work.rows import COLUMNS, to_item

_ENDED = f"""
SELECT {COLUMNS} FROM work_items i
WHERE i.follow_up AND NOT i.followed_up AND i.state IN ('SUCCEEDED', 'CANCELLED', 'DEAD') AND i.kind = ANY($1::text[])
  AND ($3::uuid IS NULL OR i.item_id = $3)
ORDER BY i.finished_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
"""


async def ended(tx: Transaction, kinds: Sequence[str], limit: int, only: UUID | None = None) -> list[WorkItem]:
    """Items that have ended (`only`: this one) and that nobody else deals with; locked to the transaction's end."""
    return [to_item(row) for row in await tx.fetch(_ENDED, list(kinds), limit, only)]


async def done(tx: Transaction, items: Sequence[WorkItem]) -> None:
    """Nothing more is to be done about them: in the transaction of `ended`."""
    await tx.execute(
        """UPDATE work_items i SET followed_up = true
           FROM unnest($1::uuid[], $2::uuid[]) AS d(organization_id, item_id)
           WHERE i.organization_id = d.organization_id AND i.item_id = d.item_id""",
        [item.organization_id for item in items],
        [item.item_id for item in items],
    )
