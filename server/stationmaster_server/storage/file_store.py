"""The queries of workspaces: whose they are, what they hold, and what is being changed there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.storage.file_model import Change, ChangeKind, Owner, WorkspaceInfo
from stationmaster_server.storage.places.place import Home, Measured

LEASE = timedelta(seconds=10)
"""A server that makes a change says so often until then; after that another one does it."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A workspace's row."""

    user_id: UUID
    used_bytes: int
    file_count: int
    revision: int


async def owner_of(tx: Transaction, organization_id: UUID, owner: UUID | None, session_id: UUID) -> Owner | None:
    """Whose session it is; None when there is none, or it is not the `owner`'s (None: anybody's)."""
    row = await tx.fetchrow(
        """SELECT user_id, state IN ('TERMINATED', 'ARCHIVED') AS ended FROM sessions
           WHERE organization_id = $1 AND id = $2 AND ($3::uuid IS NULL OR user_id = $3)""",
        organization_id,
        session_id,
        owner,
    )
    return None if row is None else Owner(row["user_id"], row["ended"])


async def workspace(tx: Transaction, home: Home, user_id: UUID) -> WorkspaceInfo:
    """What the workspace of a user's session holds."""
    row = await tx.fetchrow(
        """SELECT w.used_bytes, w.file_count, w.measured_at, coalesce(u.reserved, 0)::bigint AS reserved
           FROM (SELECT sum(reserved_bytes) AS reserved FROM uploads
                 WHERE organization_id = $1 AND session_id = $2) u
           LEFT JOIN workspaces w ON w.organization_id = $1 AND w.session_id = $2""",
        home.organization_id,
        home.session_id,
    )
    if row is None:
        raise RuntimeError("an aggregate gave no row")
    counted = (row["used_bytes"] or 0, row["file_count"] or 0, row["reserved"], row["measured_at"])
    return WorkspaceInfo(home.session_id, user_id, *counted)


async def files_of(tx: Transaction, organization_id: UUID, user_id: UUID | None) -> tuple[int, int]:
    """How many files there are of a user, or of all, and in how many workspaces."""
    row: Any = await tx.fetchrow(
        """SELECT coalesce(sum(file_count), 0)::bigint AS files, count(*) AS workspaces FROM workspaces
           WHERE organization_id = $1 AND ($2::uuid IS NULL OR user_id = $2) AND file_count > 0""",
        organization_id,
        user_id,
    )
    return row["files"], row["workspaces"]


async def lock_workspace(tx: Transaction, home: Home, user_id: UUID) -> Counted:
    """The row of a workspace, made unless it is there; nobody else changes it until the transaction ends."""
    row: Any = await tx.fetchrow(
        """INSERT INTO workspaces AS w (organization_id, session_id, user_id) VALUES ($1, $2, $3)
           ON CONFLICT (organization_id, session_id) DO UPDATE SET user_id = w.user_id
           RETURNING user_id, used_bytes, file_count, revision""",
        home.organization_id,
        home.session_id,
        user_id,
    )
    return Counted(row["user_id"], row["used_bytes"], row["file_count"], row["revision"])


async def count(tx: Transaction, home: Home, user_id: UUID, *, used: int, files: int) -> None:
    """Add to what a workspace holds."""
    await tx.execute(
        """INSERT INTO workspaces AS w (organization_id, session_id, user_id, used_bytes, file_count)
           VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (organization_id, session_id) DO UPDATE
           SET used_bytes = w.used_bytes + excluded.used_bytes, file_count = w.file_count + excluded.file_count,
               revision = w.revision + 1""",
        home.organization_id,
        home.session_id,
        user_id,
        used,
        files,
    )


async def revision(tx: Transaction, home: Home) -> int:
    """How often it was changed; 0 when there is nothing of it yet."""
    sql = "SELECT revision FROM workspaces WHERE organization_id = $1 AND session_id = $2"
    return int(await tx.fetchval(sql, home.organization_id, home.session_id) or 0)


async def changing(tx: Transaction, home: Home) -> bool:
    """Whether any change of its files is under way."""
    sql = "SELECT EXISTS (SELECT 1 FROM file_changes WHERE organization_id = $1 AND session_id = $2)"
    return bool(await tx.fetchval(sql, home.organization_id, home.session_id))


async def measured(tx: Transaction, home: Home, now_there: Measured) -> None:
    """Set what a workspace holds, whose row is locked, to what was counted."""
    await tx.execute(
        """UPDATE workspaces SET used_bytes = $3, file_count = $4, revision = revision + 1, measured_at = now(),
               measure_at = NULL
           WHERE organization_id = $1 AND session_id = $2""",
        home.organization_id,
        home.session_id,
        now_there.used_bytes,
        now_there.file_count,
    )


async def measure_later(tx: Transaction, home: Home, user_id: UUID, delay: timedelta) -> None:
    """Have the files of a workspace counted soon."""
    await tx.execute(
        """INSERT INTO workspaces AS w (organization_id, session_id, user_id, measure_at)
           VALUES ($1, $2, $3, now() + $4::interval)
           ON CONFLICT (organization_id, session_id) DO UPDATE SET measure_at = excluded.measure_at""",
        home.organization_id,
        home.session_id,
        user_id,
        delay,
    )


async def changed_otherwise(tx: Transaction, home: Home, user_id: UUID) -> None:
    """Have the files of a workspace counted, in which tools of agents or tasks may have written past the quotas."""
    await measure_later(tx, home, user_id, timedelta(0))


async def emptied(tx: Transaction, organization_id: UUID, session_ids: Sequence[UUID]) -> None:
    """Have workspaces counted whose files were deleted otherwise than one by one."""
    await tx.execute(
        "UPDATE workspaces SET measure_at = now() WHERE organization_id = $1 AND session_id = ANY($2::uuid[])",
        organization_id,
        list(session_ids),
    )


async def may_have_files(tx: Transaction, organization_id: UUID, session_ids: Sequence[UUID]) -> set[UUID]:
    """Those of some workspaces in which there are files as far as is known, or that are to be counted again."""
    rows = await tx.fetch(
        """SELECT session_id FROM workspaces WHERE organization_id = $1 AND session_id = ANY($2::uuid[])
               AND (file_count > 0 OR used_bytes > 0 OR measure_at IS NOT NULL)""",
        organization_id,
        list(session_ids),
    )
    return {row["session_id"] for row in rows}


async def to_measure(tx: Transaction, limit: int) -> list[tuple[Home, UUID]]:
    """Workspaces that are to be counted, of all organizations, and whose they are; taken for a minute."""
    rows = await tx.fetch(
        """UPDATE workspaces SET measure_at = now() + interval '1 minute'
           WHERE (organization_id, session_id) IN (
               SELECT organization_id, session_id FROM workspaces WHERE measure_at < now()
               ORDER BY measure_at LIMIT $1 FOR UPDATE SKIP LOCKED)
           RETURNING organization_id, session_id, user_id""",
        limit,
    )
    return [(Home(row["organization_id"], row["session_id"]), row["user_id"]) for row in rows]


# One path leads to the other, or they are the same.
_OVERLAPS = "({0} = {1} OR starts_with({0}, {1} || '/') OR starts_with({1}, {0} || '/'))"
_FREE = " AND ".join(
    f"NOT ({mine} <> '' AND {theirs} <> '' AND {_OVERLAPS.format(mine, theirs)})"
    for mine in ("$5::text", "$6::text")
    for theirs in ("c.path", "c.target")
)
_CLAIM = f"""
INSERT INTO file_changes (organization_id, session_id, id, kind, path, target, upload_id, etag, user_id, leased_until)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, now() + $10::interval
WHERE NOT EXISTS (SELECT 1 FROM file_changes c WHERE c.organization_id = $1 AND c.session_id = $2 AND NOT ({_FREE}))
RETURNING id
"""


async def claim(tx: Transaction, change: Change) -> bool:
    """Hold the paths of a change, whose workspace is locked; False while another change holds one of them."""
    row = await tx.fetchrow(
        _CLAIM,
        change.home.organization_id,
        change.home.session_id,
        change.id,
        change.kind,
        change.path,
        change.target,
        change.upload_id,
        change.etag,
        change.user_id,
        LEASE,
    )
    return row is not None


async def decide(tx: Transaction, change: Change) -> bool:
    """The change will be made; False when its claim has been taken away."""
    tag = await tx.execute(
        """UPDATE file_changes SET decided = true, etag = $4, leased_until = now() + $5::interval
           WHERE organization_id = $1 AND session_id = $2 AND id = $3""",
        *_key(change),
        change.etag,
        LEASE,
    )
    return tag == "UPDATE 1"


async def extend(tx: Transaction, change: Change) -> None:
    """Say that it is being made."""
    await tx.execute(
        """UPDATE file_changes SET leased_until = now() + $4::interval
           WHERE organization_id = $1 AND session_id = $2 AND id = $3""",
        *_key(change),
        LEASE,
    )


async def end(tx: Transaction, change: Change) -> bool:
    """Give the paths free; whether nobody else had."""
    tag = await tx.execute(
        "DELETE FROM file_changes WHERE organization_id = $1 AND session_id = $2 AND id = $3", *_key(change)
    )
    return tag == "DELETE 1"


async def release(tx: Transaction, change: Change) -> None:
    """Give the paths free of a change that was not decided."""
    await tx.execute(
        """DELETE FROM file_changes WHERE organization_id = $1 AND session_id = $2 AND id = $3 AND NOT decided""",
        *_key(change),
    )


async def release_left(tx: Transaction) -> None:
    """Give the paths free of changes that nobody has decided, nor will."""
    await tx.execute("DELETE FROM file_changes WHERE leased_until < now() AND NOT decided AND batch_id IS NULL")


async def take_left(tx: Transaction, limit: int) -> list[Change]:
    """Changes of all organizations that are decided and that nobody makes any more; now the caller's to make.

    Those of batches are left with these.
    """
    rows = await tx.fetch(
        """UPDATE file_changes SET leased_until = now() + $2::interval
           WHERE (organization_id, session_id, id) IN (
               SELECT organization_id, session_id, id FROM file_changes
               WHERE leased_until < now() AND decided AND batch_id IS NULL
               ORDER BY leased_until LIMIT $1 FOR UPDATE SKIP LOCKED)
           RETURNING *""",
        limit,
        LEASE,
    )
    return [change_of(row) for row in rows]


async def checksums(tx: Transaction, home: Home, paths: Sequence[str]) -> dict[tuple[str, str], str]:
    """The SHA-256 of files that were uploaded, by path and etag."""
    rows = await tx.fetch(
        """SELECT path, etag, sha256 FROM workspace_files
           WHERE organization_id = $1 AND session_id = $2 AND path = ANY($3::text[])""",
        home.organization_id,
        home.session_id,
        list(paths),
    )
    return {(row["path"], row["etag"]): row["sha256"] for row in rows}


async def keep_checksum(tx: Transaction, home: Home, path: str, etag: str, sha256: str) -> None:
    """Note the SHA-256 of a file; empty: that it is not known."""
    await tx.execute(
        """INSERT INTO workspace_files (organization_id, session_id, path, etag, sha256) VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (organization_id, session_id, path) DO UPDATE
           SET etag = excluded.etag, sha256 = excluded.sha256""",
        home.organization_id,
        home.session_id,
        path,
        etag,
        sha256,
    )


async def forget_checksum(tx: Transaction, home: Home, path: str) -> None:
    """The file is no more, or another."""
    await tx.execute(
        "DELETE FROM workspace_files WHERE organization_id = $1 AND session_id = $2 AND path = $3",
        home.organization_id,
        home.session_id,
        path,
    )


async def forget_checksums(tx: Transaction, home: Home) -> None:
    """All of a workspace's files are no more."""
    await tx.execute(
        "DELETE FROM workspace_files WHERE organization_id = $1 AND session_id = $2",
        home.organization_id,
        home.session_id,
    )


def _key(change: Change) -> tuple[UUID, UUID, UUID]:
    return change.home.organization_id, change.home.session_id, change.id


def change_of(row: Record) -> Change:
    """A row of changes."""
    return Change(
        home=Home(row["organization_id"], row["session_id"]),
        id=row["id"],
        user_id=row["user_id"],
        kind=ChangeKind(row["kind"]),
        path=row["path"],
        target=row["target"],
        upload_id=row["upload_id"],
        etag=row["etag"],
        decided=row["decided"],
        batch_id=row["batch_id"],
    )
