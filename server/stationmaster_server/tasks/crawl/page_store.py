"""The queries of what crawls have found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.record import Record
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.crawl.model import Page, PageState, Why

_OF = "organization_id = $1 AND execution_id = $2"
# What counts against the limit of pages: everything that the site was asked for, but the hops on the way to it.
_ASKED = "attempts > 0 AND state <> 'PENDING' AND reason IS DISTINCT FROM 'REDIRECTED'"
_PAGE = """number, url, depth, state, reason, error, attempts, status_code, size_bytes, content_type, title, markdown,
           canonical_url, redirect_to, duplicate_of, content_hash, fetched_at"""


@dataclass(frozen=True, slots=True)
class Counts:
    """The URLs of a crawl by state and by reason; `asked` counts against the limit of pages."""

    states: dict[str, int]
    reasons: dict[str, int]
    asked: int
    size_bytes: int


async def count(tx: Transaction, organization_id: UUID, execution_id: UUID) -> Counts:
    """How many URLs are in which state."""
    rows = await tx.fetch(
        f"""SELECT state, reason, count(*) AS urls, count(*) FILTER (WHERE {_ASKED}) AS asked, sum(size_bytes) AS size
            FROM crawl_pages WHERE {_OF} GROUP BY state, reason""",
        organization_id,
        execution_id,
    )
    states = {state.value: sum(row["urls"] for row in rows if row["state"] == state) for state in PageState}
    reasons = {row["reason"]: 0 for row in rows if row["reason"]}
    for row in rows:
        if row["reason"]:
            reasons[row["reason"]] += row["urls"]
    return Counts(states, reasons, sum(row["asked"] for row in rows), int(sum(row["size"] for row in rows)))


async def pages(
    tx: Transaction,
    organization_id: UUID,
    execution_id: UUID,
    *,
    after: int = 0,
    limit: int = 100,
    state: PageState | None = None,
) -> list[Page]:
    """Pages of a crawl whose number is greater than `after`, in the order in which they were found."""
    rows = await tx.fetch(
        f"""SELECT {_PAGE} FROM crawl_pages
            WHERE {_OF} AND number > $3 AND ($5::text IS NULL OR state = $5) ORDER BY number LIMIT $4""",
        organization_id,
        execution_id,
        after,
        limit,
        state,
    )
    return [_page(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Line:
    """What became of a URL, without its text."""

    url: str
    title: str
    depth: int
    state: PageState
    reason: Why | None
    error: str
    status_code: int | None
    size_bytes: int
    redirect_to: str
    duplicate_of: str


async def lines(tx: Transaction, organization_id: UUID, execution_id: UUID, fetched: bool, limit: int) -> list[Line]:
    """The first URLs of a crawl that were fetched, or that were not, in the order in which they were found."""
    rows = await tx.fetch(
        f"""SELECT url, title, depth, state, reason, error, status_code, size_bytes, redirect_to, duplicate_of
            FROM crawl_pages WHERE {_OF} AND state <> 'PENDING' AND (state = 'FETCHED') = $3
            ORDER BY number LIMIT $4""",
        organization_id,
        execution_id,
        fetched,
        limit,
    )
    return [
        Line(**{**row, "state": PageState(row["state"]), "reason": Why(row["reason"]) if row["reason"] else None})
        for row in map(dict, rows)
    ]


async def delete(tx: Transaction, organization_id: UUID, execution_id: UUID) -> None:
    """Forget a crawl and its pages."""
    await tx.execute(f"DELETE FROM crawl_pages WHERE {_OF}", organization_id, execution_id)
    await tx.execute(f"DELETE FROM crawl_runs WHERE {_OF}", organization_id, execution_id)


async def forget_old(tx: Transaction, keep: timedelta, limit: int) -> int:
    """Delete crawls, of all organizations, in which nothing has happened for so long; returns how many."""
    rows = await tx.fetch(
        """DELETE FROM crawl_runs WHERE (organization_id, execution_id) IN (
               SELECT organization_id, execution_id FROM crawl_runs
               WHERE updated_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)
           RETURNING organization_id, execution_id""",
        keep,
        limit,
    )
    for row in rows:
        await tx.execute(f"DELETE FROM crawl_pages WHERE {_OF}", row["organization_id"], row["execution_id"])
    return len(rows)


def _page(row: Record) -> Page:
    values = dict(row)
    values["state"] = PageState(values["state"])
    values["reason"] = Why(values["reason"]) if values["reason"] else None
    return Page(**values)
