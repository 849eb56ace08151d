"""The queries of a worker that runs an attempt at an execution."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.model import RanIn


@dataclass(frozen=True, slots=True)
class Stored:
    """What a worker reads of an execution before it begins."""

    payload: dict[str, Any]
    variables: dict[str, Any]
    template: bool
    task_id: str | None
    scheduled_for: datetime | None
    checkpoint: dict[str, Any] | None
    secrets: dict[str, Any] = field(repr=False)
    conversation_id: UUID
    ran_in: RanIn
    owner_disabled: bool = False


async def begin(tx: Transaction, organization_id: UUID, execution_id: UUID, lease_token: UUID) -> Stored | None:
    """What a worker needs, and nobody else gets its lease before the transaction's end; None: it has the lease no more.

    As `work.leases.hold`, in one round trip.
    """
    row = await tx.fetchrow(
        """SELECT e.payload, e.variables, e.template, e.task_id, e.scheduled_for,
                  e.checkpoint, e.secrets, e.conversation_id, e.session_id, e.turn_id, e.keep_session,
                  NOT EXISTS (SELECT FROM users u WHERE u.organization_id = e.organization_id AND u.id = e.user_id
                              AND u.disabled_at IS NULL)
           FROM work_items i JOIN executions e ON e.organization_id = i.organization_id AND e.id = i.item_id
           WHERE i.organization_id = $1 AND i.item_id = $2 AND i.lease_token = $3 AND i.state = 'RUNNING'
           FOR SHARE OF i""",
        organization_id,
        execution_id,
        lease_token,
    )
    if row is None:
        return None
    fields: list[Any] = [*row[:-4], RanIn(*row[-4:-1]), row[-1]]
    return Stored(*fields)


async def has_begun(tx: Transaction, organization_id: UUID, execution_id: UUID, lease_token: UUID) -> bool:
    """Whether its stream tells of the attempt under this lease: else its beginning was not committed."""
    sql = "SELECT fence = $3 FROM streams WHERE organization_id = $1 AND stream_id = $2"
    return bool(await tx.fetchval(sql, organization_id, execution_id, lease_token))


async def set_rendered(tx: Transaction, organization_id: UUID, execution_id: UUID, payload: dict[str, Any]) -> None:
    """Write the payload filled in."""
    sql = "UPDATE executions SET payload = $3, template = false WHERE organization_id = $1 AND id = $2"
    await tx.execute(sql, organization_id, execution_id, payload)


async def set_checkpoint(
    tx: Transaction, organization_id: UUID, execution_id: UUID, checkpoint: dict[str, Any]
) -> None:
    """Write what the next attempt goes on from."""
    sql = "UPDATE executions SET checkpoint = $3 WHERE organization_id = $1 AND id = $2"
    await tx.execute(sql, organization_id, execution_id, checkpoint)


async def set_ran_in(tx: Transaction, organization_id: UUID, execution_id: UUID, ran_in: RanIn) -> None:
    """Write the session that an execution runs in, and the turn that it waits for there."""
    await tx.execute(
        """UPDATE executions SET session_id = $3, turn_id = $4, keep_session = $5
           WHERE organization_id = $1 AND id = $2""",
        organization_id,
        execution_id,
        ran_in.session_id,
        ran_in.turn_id,
        ran_in.keep,
    )


async def delete_made(tx: Transaction, organization_id: UUID, execution_id: UUID) -> None:
    """Delete what an execution made that another one replaces: its documents, and what it knows of a crawl."""
    for table in ("documents", "crawl_pages", "crawl_runs"):
        sql = f"DELETE FROM {table} WHERE organization_id = $1 AND execution_id = $2"
        await tx.execute(sql, organization_id, execution_id)
