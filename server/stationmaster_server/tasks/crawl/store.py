"""The queries of a crawl under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks.crawl.model import Result, Target, Why

_OF = "organization_id = $1 AND execution_id = $2"


@dataclass(frozen=True, slots=True)
class Begun:
    """A crawl as its crawler finds it."""

    fence: int
    seeded: bool
    cookies: Sequence[dict[str, Any]]


async def begin(tx: Transaction, organization_id: UUID, execution_id: UUID) -> Begun:
    """Start a crawl, or take it over: no crawler that started before can write from now on."""
    row: Any = await tx.fetchrow(
        """INSERT INTO crawl_runs (organization_id, execution_id, fence) VALUES ($1, $2, 1)
           ON CONFLICT (organization_id, execution_id)
           DO UPDATE SET fence = crawl_runs.fence + 1, updated_at = now()
           RETURNING fence, seeded, cookies""",
        organization_id,
        execution_id,
    )
    return Begun(row["fence"], row["seeded"], row["cookies"])


async def hold(tx: Transaction, organization_id: UUID, execution_id: UUID, fence: int) -> int | None:
    """Lock a crawl until the transaction's end; returns how many URLs it has, None if the fence is not the newest."""
    urls: int | None = await tx.fetchval(
        f"SELECT urls FROM crawl_runs WHERE {_OF} AND fence = $3 FOR UPDATE", organization_id, execution_id, fence
    )
    return urls


async def update_run(
    tx: Transaction,
    organization_id: UUID,
    execution_id: UUID,
    *,
    more_urls: int = 0,
    cookies: Sequence[dict[str, Any]] | None = None,
    seeded: bool = False,
) -> None:
    """What changed of a crawl: how many URLs came, the cookies, that its first URLs are all there."""
    await tx.execute(
        f"""UPDATE crawl_runs SET urls = urls + $3, cookies = coalesce($4, cookies), seeded = seeded OR $5,
                                  updated_at = now() WHERE {_OF}""",
        organization_id,
        execution_id,
        more_urls,
        None if cookies is None else list(cookies),
        seeded,
    )


async def add(
    tx: Transaction,
    organization_id: UUID,
    execution_id: UUID,
    targets: Sequence[tuple[str, str]],
    depth: int,
    room: int,
) -> int:
    """Add URLs, each with its host, as far as they are new and there is room; returns how many."""
    tag = await tx.execute(
        """INSERT INTO crawl_pages (organization_id, execution_id, url, host, depth)
           SELECT $1, $2, n.url, n.host, $5 FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS n(url, host, place)
           WHERE NOT EXISTS (SELECT FROM crawl_pages p
                             WHERE p.organization_id = $1 AND p.execution_id = $2 AND p.url = n.url)
           ORDER BY place LIMIT $6""",
        organization_id,
        execution_id,
        [url for url, _ in targets],
        [host for _, host in targets],
        depth,
        room,
    )
    return int(tag.rpartition(" ")[2])


async def redirect(tx: Transaction, organization_id: UUID, execution_id: UUID, target: Target, *, reopen: bool) -> bool:
    """Add where a redirect leads; with `reopen` also a URL that was itself redirected. Returns whether it is new."""
    return bool(
        await tx.fetchval(
            """INSERT INTO crawl_pages (organization_id, execution_id, url, host, depth, via)
               VALUES ($1, $2, $3, $4, $5, $6)
               ON CONFLICT (organization_id, execution_id, url)
               DO UPDATE SET state = 'PENDING', reason = NULL, via = excluded.via, taken = 0
               WHERE $7 AND crawl_pages.reason = 'REDIRECTED'
               RETURNING xmax = 0""",
            organization_id,
            execution_id,
            target.url,
            target.host,
            target.depth,
            list(target.via),
            reopen,
        )
    )


async def take(
    tx: Transaction, organization_id: UUID, execution_id: UUID, fence: int, limit: int, without: Sequence[str]
) -> list[Target]:
    """The next pages that nobody with this fence has, none of the hosts `without`; those found nearest first."""
    rows = await tx.fetch(
        """UPDATE crawl_pages p SET taken = $3
           FROM (SELECT url FROM crawl_pages
                 WHERE organization_id = $1 AND execution_id = $2 AND state = 'PENDING' AND taken < $3
                       AND host <> ALL($4::text[])
                 ORDER BY depth, number LIMIT $5) AS next
           WHERE p.organization_id = $1 AND p.execution_id = $2 AND p.url = next.url
           RETURNING p.url, p.host, p.depth, p.via, p.number""",
        organization_id,
        execution_id,
        fence,
        list(without),
        limit,
    )
    rows.sort(key=lambda row: (row["depth"], row["number"]))
    return [Target(row["url"], row["host"], row["depth"], tuple(row["via"])) for row in rows]


async def find_text(tx: Transaction, organization_id: UUID, execution_id: UUID, content_hash: bytes) -> str | None:
    """The page that has this text already."""
    url: str | None = await tx.fetchval(
        f"SELECT url FROM crawl_pages WHERE {_OF} AND content_hash = $3 AND state = 'FETCHED' ORDER BY number LIMIT 1",
        organization_id,
        execution_id,
        content_hash,
    )
    return url


async def finish_page(
    tx: Transaction, organization_id: UUID, execution_id: UUID, url: str, result: Result, duplicate_of: str
) -> None:
    """Write what became of a page."""
    await tx.execute(
        f"""UPDATE crawl_pages SET state = $4, reason = $5, error = $6, attempts = attempts + $7, status_code = $8,
                size_bytes = $9, content_type = $10, title = $11, markdown = $12, canonical_url = $13,
                redirect_to = $14, duplicate_of = $15, content_hash = $16, fetched_at = now()
            WHERE {_OF} AND url = $3 AND state = 'PENDING'""",
        organization_id,
        execution_id,
        url,
        result.state,
        result.reason,
        result.error,
        result.attempts,
        result.status_code,
        result.size_bytes,
        result.content_type,
        result.title,
        result.markdown,
        result.canonical_url,
        result.redirect_to,
        duplicate_of,
        result.content_hash,
    )


async def skip_rest(tx: Transaction, organization_id: UUID, execution_id: UUID, reason: Why) -> None:
    """Whatever is still pending is skipped."""
    await tx.execute(
        f"UPDATE crawl_pages SET state = 'SKIPPED', reason = $3 WHERE {_OF} AND state = 'PENDING'",
        organization_id,
        execution_id,
        reason,
    )
