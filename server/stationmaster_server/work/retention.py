"""Forgetting items that ended well, or were cancelled, long ago; dead ones stay until somebody has looked at them."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.db.transaction import Transaction

BATCH = 1000

# An item that a repeated submission may still be answered with stays, and so do those that somebody else says he needs.
# Those with a follow-up belong to whoever follows them up.
_FORGET = """
DELETE FROM work_items WHERE ctid = ANY (ARRAY(
    SELECT i.ctid FROM work_items i
    WHERE i.state IN ('SUCCEEDED', 'CANCELLED') AND i.finished_at < now() - $1::interval
      AND (i.idempotency_key IS NULL OR i.idempotency_expires_at < now())
      AND NOT i.follow_up
      AND NOT ({needed})
    LIMIT $2 FOR UPDATE OF i SKIP LOCKED
))
"""


async def forget_ended(tx: Transaction, older_than: timedelta, *, needed: str = "false") -> int:
    """Delete a batch of the items that ended longer ago; returns how many: `BATCH` when there may be more.

    `needed` is SQL of the program's own: which items `i` stay, whatever their age.
    """
    tag = await tx.execute(_FORGET.format(needed=needed), older_than, BATCH)
    return int(tag.rpartition(" ")[2])
