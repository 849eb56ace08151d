"""The queries of the indexes in this database, as targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.model import MAX_DEPTH
from stationmaster_server.tasks.sync.model import Key


async def lacking(tx: Transaction, service_id: str, encoder: str, etags: Mapping[Key, str]) -> list[Key]:
    """Those of the tasks that have no vector of this etag, made since the service was to make all of them anew.

    Not those whose text the encoder refused since then.
    """
    rows = await tx.fetch(
        """SELECT k.organization_id, k.task_id
           FROM unnest($1::uuid[], $2::text[], $3::text[]) AS k(organization_id, task_id, etag)
           LEFT JOIN task_vectors v USING (organization_id, task_id)
           LEFT JOIN sync_generations g ON g.service_id = $4
           WHERE (v.etag IS DISTINCT FROM k.etag OR v.created_at < g.asked_at)
             AND NOT EXISTS (
                 SELECT FROM sync_skipped s
                 WHERE s.organization_id = k.organization_id AND s.task_id = k.task_id AND s.service_id = $4
                   AND s.etag = k.etag AND s.method = $5 AND s.skipped_at >= coalesce(g.asked_at, '-infinity'))""",
        [key.organization_id for key in etags],
        [key.task_id for key in etags],
        list(etags.values()),
        service_id,
        encoder,
    )
    return [Key(*row) for row in rows]


async def off_etag(tx: Transaction, service_id: str, etags: Mapping[Key, str]) -> list[Key]:
    """Those of the tasks that have no vector of this etag, and whose text of this etag was not refused."""
    rows = await tx.fetch(
        """SELECT k.organization_id, k.task_id
           FROM unnest($1::uuid[], $2::text[], $3::text[]) AS k(organization_id, task_id, etag)
           LEFT JOIN task_vectors v USING (organization_id, task_id)
           WHERE v.etag IS DISTINCT FROM k.etag AND NOT EXISTS (
               SELECT FROM sync_skipped s
               WHERE s.organization_id = k.organization_id AND s.task_id = k.task_id AND s.service_id = $4
                 AND s.etag = k.etag)""",
        [key.organization_id for key in etags],
        [key.task_id for key in etags],
        list(etags.values()),
        service_id,
    )
    return [Key(*row) for row in rows]


async def vectors_after(tx: Transaction, key: Key, limit: int) -> list[Key]:
    """The tasks of the next vectors."""
    rows = await tx.fetch(
        """SELECT organization_id, task_id FROM task_vectors
           WHERE (organization_id, task_id) > ($1, $2) ORDER BY 1, 2 LIMIT $3""",
        *key,
        limit,
    )
    return [Key(*row) for row in rows]


async def off_level(tx: Transaction, keys: Sequence[Key]) -> list[Key]:
    """Those of the tasks whose level is not one above the highest that they depend on."""
    rows = await tx.fetch(
        """SELECT k.organization_id, k.task_id FROM unnest($1::uuid[], $2::text[]) AS k(organization_id, task_id)
           LEFT JOIN task_levels own USING (organization_id, task_id),
           LATERAL (SELECT coalesce(max(coalesce(l.level, 0) + 1), 0) AS level FROM task_dependencies d
                    LEFT JOIN task_levels l ON l.organization_id = d.organization_id AND l.task_id = d.depends_on
                    WHERE d.organization_id = k.organization_id AND d.task_id = k.task_id) wanted
           WHERE coalesce(own.level, 0) <> wanted.level""",
        [key.organization_id for key in keys],
        [key.task_id for key in keys],
    )
    return [Key(*row) for row in rows]


async def drop_stray_levels(tx: Transaction) -> None:
    """Delete the levels of what is no task."""
    await tx.execute(
        """DELETE FROM task_levels l WHERE NOT EXISTS (
               SELECT FROM tasks t WHERE t.organization_id = l.organization_id AND t.task_id = l.task_id)"""
    )


async def rebuild_levels(tx: Transaction, organization_id: UUID) -> bool:
    """Make the levels of an organization anew, whose graph is locked.

    False: there is a cycle; what depends on it has levels that no graph without cycles has.
    """
    await tx.execute("DELETE FROM task_levels WHERE organization_id = $1", organization_id)
    await tx.execute(
        """INSERT INTO task_levels (organization_id, task_id, level)
           SELECT DISTINCT organization_id, task_id, 0 FROM task_dependencies WHERE organization_id = $1""",
        organization_id,
    )
    for _ in range(MAX_DEPTH + 1):
        tag = await tx.execute(
            """UPDATE task_levels t SET level = n.level
               FROM (SELECT d.task_id, max(coalesce(l.level, 0) + 1)::smallint AS level FROM task_dependencies d
                     LEFT JOIN task_levels l ON l.organization_id = d.organization_id AND l.task_id = d.depends_on
                     WHERE d.organization_id = $1 GROUP BY d.task_id) n
               WHERE t.organization_id = $1 AND t.task_id = n.task_id AND t.level <> n.level""",
            organization_id,
        )
        if tag == "UPDATE 0":
            return True
    return False


async def levels_after(tx: Transaction, key: Key, limit: int) -> list[Key]:
    """The tasks of the next levels but 0."""
    rows = await tx.fetch(
        """SELECT organization_id, task_id FROM task_levels
           WHERE (organization_id, task_id) > ($1, $2) AND level > 0 ORDER BY 1, 2 LIMIT $3""",
        *key,
        limit,
    )
    return [Key(*row) for row in rows]
