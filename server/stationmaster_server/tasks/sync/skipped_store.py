"""The queries of what targets cannot hold as it is."""

from __future__ import annotations

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.sync.model import Key

# Of a text that is no more, nobody needs to know.
_CURRENT = """sync_skipped s JOIN tasks t USING (organization_id, task_id)
              WHERE s.service_id = {service} AND s.etag = t.text_etag"""
COUNT = f"(SELECT count(*) FROM {_CURRENT})"
"""How many a service skips, whose id is `{service}`."""


async def put(tx: Transaction, service_id: str, key: Key, etag: str, method: str, why: str) -> None:
    """Skip a task's text as of `etag`; nothing if there is no such task any more."""
    await tx.execute(
        """INSERT INTO sync_skipped (organization_id, task_id, service_id, etag, method, why)
           SELECT organization_id, task_id, $3, $4, $5, $6 FROM tasks
           WHERE organization_id = $1 AND task_id = $2 FOR SHARE
           ON CONFLICT (organization_id, task_id, service_id) DO UPDATE
           SET (etag, method, why, skipped_at) = ROW (excluded.etag, excluded.method, excluded.why, now())""",
        *key,
        service_id,
        etag,
        method,
        why,
    )


async def skipped(tx: Transaction, service_id: str) -> dict[Key, tuple[str, str]]:
    """What a service skips: the etag, and why."""
    sql = f"SELECT s.organization_id, s.task_id, s.etag, s.why FROM {_CURRENT.format(service='$1')}"
    return {Key(row[0], row[1]): (row[2], row[3]) for row in await tx.fetch(sql, service_id)}
