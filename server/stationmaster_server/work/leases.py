"""Whether a lease is still held, for handlers that are about to rely on it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import LeaseLost
from stationmaster_server.work.run import Run


async def report(tx: Transaction, run: Run, progress: Mapping[str, Any]) -> None:
    """Write how far the run is, without waiting for the next heartbeat; of one that has lost its lease: nothing."""
    await tx.execute(
        """UPDATE work_items SET progress = $4
           WHERE organization_id = $1 AND item_id = $2 AND lease_token = $3 AND state = 'RUNNING'""",
        run.item.organization_id,
        run.item.item_id,
        run.lease_token,
        dict(progress),
    )


async def hold(tx: Transaction, run: Run) -> None:
    """Make sure that the run has its lease, and nobody else gets it before the transaction's end. Raises LeaseLost."""
    held = await tx.fetchval(
        """SELECT true FROM work_items
           WHERE organization_id = $1 AND item_id = $2 AND lease_token = $3 AND state = 'RUNNING' FOR SHARE""",
        run.item.organization_id,
        run.item.item_id,
        run.lease_token,
    )
    if held is None:
        run.lost = True
        raise LeaseLost(f"item {run.item.item_id} is run by somebody else")
