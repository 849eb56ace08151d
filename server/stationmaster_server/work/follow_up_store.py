"""What is still to be done about items that have ended, however they did: of those submitted with `follow_up`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.work.model import WorkItem
from stationmaster_server.work.rows import COLUMNS, to_item

_LOOK = """
SELECT i.organization_id, i.item_id FROM work_items i
WHERE i.follow_up AND NOT i.followed_up AND i.state IN ('SUCCEEDED', 'CANCELLED', 'DEAD') AND i.kind = ANY($1::text[])
  AND i.organization_id <> ALL($3::uuid[])
ORDER BY i.finished_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
"""
_LOCK = f"""
SELECT {COLUMNS} FROM work_items i
WHERE i.organization_id = $1 AND i.item_id = ANY($2::uuid[])
  AND i.follow_up AND NOT i.followed_up AND i.state IN ('SUCCEEDED', 'CANCELLED', 'DEAD')
FOR NO KEY UPDATE SKIP LOCKED
"""


async def look(
    tx: Transaction, kinds: Sequence[str], limit: int, *, without: Collection[UUID] = ()
) -> dict[UUID, list[UUID]]:
    """Items that have ended and that nobody deals with, the oldest ends first, by organization, `without` some.

    For `lock`, which is to make sure: in between, whatever must be locked before items can be.
    """
    found = defaultdict[UUID, list[UUID]](list)
    for organization_id, item_id in await tx.fetch(_LOOK, list(kinds), limit, list(without)):
        found[organization_id].append(item_id)
    return dict(found)


async def lock(tx: Transaction, organization_id: UUID, item_ids: Sequence[UUID]) -> list[WorkItem]:
    """Those of the items that have ended and that nobody else deals with; locked to the transaction's end."""
    return [to_item(row) for row in await tx.fetch(_LOCK, organization_id, list(item_ids))]


async def done(tx: Transaction, items: Sequence[WorkItem]) -> None:
    """Nothing more is to be done about them: in the transaction of `ended`."""
    await tx.execute(
        """UPDATE work_items i SET followed_up = true
           FROM unnest($1::uuid[], $2::uuid[]) AS d(organization_id, item_id)
           WHERE i.organization_id = d.organization_id AND i.item_id = d.item_id""",
        [item.organization_id for item in items],
        [item.item_id for item in items],
    )
