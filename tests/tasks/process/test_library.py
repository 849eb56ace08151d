"""Documents and their vectors in the database: attempts that meet, tenants apart, a small one beside a large one."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.roles import APP_ROLE
from stationmaster_server.embedding.encoder import DIMENSIONS
from stationmaster_server.embedding.hashing import HashingEncoder
from stationmaster_server.errors import LeaseLost
from stationmaster_server.identity.system import system_caller
from stationmaster_server.tasks import search_store
from stationmaster_server.tasks.process.library import Library
from stationmaster_server.tasks.process.model import Document, Source, Splitting
from stationmaster_server.tasks.process.splitter import split

from tests.fixtures.database import make_tenant

ENCODER = HashingEncoder()
TEXT = "\n\n".join(f"## Number {n}\n\nThe lighthouse number {n} is painted red." for n in range(10))
PIECES = split(TEXT, Splitting(80, 0))
VECTORS = ENCODER.encode([piece.text for piece in PIECES])


@pytest.fixture
def library(database: Database) -> Library:
    """The library of a server."""
    return Library(database, AuditLog(database))


def caller_of(tenant: Tenant) -> Caller:
    return system_caller(tenant.organization_id, tenant.user_id, request_id="test")


def document(tenant: Tenant, text: str = TEXT, source: str = "lighthouses") -> Document:
    facts = Source(source, "", "text/markdown", text)
    return Document(
        id=new_id(),
        user_id=tenant.user_id,
        execution_id=new_id(),
        source=source,
        title="",
        media_type="text/markdown",
        size_bytes=len(text),
        sha256=facts.sha256(),
        encoder=ENCODER.name,
        pieces=0,
        ready=False,
        created_at=datetime.now(UTC),
    )


async def put(library: Library, tenant: Tenant, new: Document) -> None:
    caller = caller_of(tenant)
    await library.begin(caller, new)
    await library.append(caller, new, PIECES, VECTORS)
    await library.finish(caller, new, replace=False)


async def test_attempts_that_write_in_turns_make_one_document(
    library: Library, tenant: Tenant, database: Database
) -> None:
    caller, new = caller_of(tenant), document(tenant)
    assert await library.begin(caller, new) == (0, False)
    assert await library.append(caller, new, PIECES[:4], VECTORS[:4]) == 4
    assert await library.begin(caller, new) == (4, False)  # another attempt
    assert await library.append(caller, new, PIECES[:4], VECTORS[:4]) == 4  # the one that stalled
    assert await library.append(caller, new, PIECES[4:], VECTORS[4:]) == len(PIECES)
    await library.finish(caller, new, replace=False)
    assert await library.begin(caller, new) == (len(PIECES), True)
    with pytest.raises(LeaseLost):
        await library.append(caller, new, PIECES[:1], VECTORS[:1])
    with pytest.raises(LeaseLost):
        await library.finish(caller, new, replace=False)
    async with database.system(autocommit=True) as tx:
        assert await tx.fetchval("SELECT count(*) FROM pieces") == len(PIECES)


async def test_a_text_that_changed_between_attempts_begins_anew(
    library: Library, tenant: Tenant, database: Database
) -> None:
    caller, new = caller_of(tenant), document(tenant)
    await library.begin(caller, new)
    await library.append(caller, new, PIECES[:4], VECTORS[:4])
    changed = replace(new, sha256=b"another")
    assert await library.begin(caller, changed) == (0, False)
    with pytest.raises(LeaseLost):
        await library.append(caller, new, PIECES[4:], VECTORS[4:])
    async with database.system(autocommit=True) as tx:
        assert await tx.fetchval("SELECT count(*) FROM pieces") == 0


async def test_tenants_are_kept_apart_also_by_raw_sql(
    library: Library, tenant: Tenant, database: Database, database_url: str
) -> None:
    other = await make_tenant(database)
    await put(library, tenant, document(tenant))
    async with database.tenant(other, read=True) as tx:
        for query in ("SELECT text FROM pieces ORDER BY vector <=> $1::real[]::vector LIMIT 5",):
            assert await tx.fetch(query, VECTORS[0]) == []
        assert await tx.fetch("SELECT 1 FROM pieces WHERE words @@ websearch_to_tsquery('simple', 'lighthouse')") == []
    async with database.tenant(tenant, read=True) as tx:
        assert len(await tx.fetch("SELECT 1 FROM pieces")) == len(PIECES)
    connection = await asyncpg.connect(database_url, server_settings={"role": APP_ROLE})
    assert await connection.fetchval("SELECT count(*) FROM pieces") == 0
    await connection.close()


async def by_meaning(
    database: Database, tenant: Tenant, vector: list[float], owner: UUID | None = None, limit: int = 10
) -> list[int]:
    """The numbers of the pieces that are nearest."""
    async with database.tenant(tenant, read=True) as tx:
        ranking = await search_store.pieces_by_meaning(
            tx, tenant.organization_id, owner, vector, ENCODER.name, 0.2, limit
        )
    return [number for (_, _, number), _ in ranking]


async def crowd(database: Database, tenant: Tenant, near: list[float], count: int) -> None:
    """A large tenant whose pieces are all nearer to a vector than anything else."""
    chance = random.Random(1)
    new = document(tenant)
    async with database.system() as tx:
        await tx.execute(
            """INSERT INTO documents (organization_id, id, user_id, execution_id, source, title, media_type, size_bytes,
                   sha256, encoder, pieces, ready)
               VALUES ($1, $2, $3, $4, 'crowd', '', '', 0, '', $5, $6, true)""",
            tenant.organization_id,
            new.id,
            tenant.user_id,
            new.execution_id,
            ENCODER.name,
            count,
        )
        rows = []
        for number in range(count):
            vector = list(near)
            vector[chance.randrange(DIMENSIONS)] += chance.uniform(0, 0.2)
            rows.append((tenant.organization_id, new.id, number, tenant.user_id, ENCODER.name, vector))
        await tx.executemany(
            """INSERT INTO pieces (organization_id, document_id, number, user_id, text, headings, context, start_offset,
                   encoder, vector) VALUES ($1, $2, $3, $4, '', '{}', '', 0, $5, $6::real[]::vector)""",
            rows,
        )


async def plan(database: Database, tenant: Tenant, vector: list[float]) -> str:
    """How the pieces of a tenant with many are found."""
    arguments = (tenant.organization_id, None, vector, ENCODER.name, 0.2, 10)
    async with database.tenant(tenant, read=True) as tx:
        return "\n".join(row[0] for row in await tx.fetch(f"EXPLAIN {search_store.BY_INDEX}", *arguments))


async def test_a_small_tenant_beside_a_large_one_finds_all_its_pieces(
    library: Library, tenant: Tenant, database: Database
) -> None:
    other = await make_tenant(database)
    await put(library, tenant, document(tenant))
    (query,) = ENCODER.encode(["red lighthouse number 7"])
    await crowd(database, other, query, 3000)
    numbers = await by_meaning(database, tenant, query)
    assert sorted(numbers) == list(range(10))
    assert numbers[0] == 7
    assert await by_meaning(database, tenant, query, owner=other.user_id) == []
    assert len(await by_meaning(database, other, query, limit=500)) == 500


async def test_the_index_is_read_on_until_enough_of_a_tenants_own_are_found(
    library: Library, tenant: Tenant, database: Database, database_url: str, administrator_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(search_store, "FEW_PIECES", 0)
    other = await make_tenant(database)
    await put(library, tenant, document(tenant))
    (query,) = ENCODER.encode(["red lighthouse number 7"])
    await crowd(database, other, query, 3000)  # all of them nearer than the tenant's own
    administrator = await asyncpg.connect(administrator_url)
    await administrator.execute("ANALYZE pieces; ANALYZE documents")
    # So that the planner does not take another way, which it rightly does while one tenant has so few.
    name = database_url.partition("@/")[2].partition("?")[0]
    await administrator.execute(f"ALTER DATABASE {name} SET enable_sort = off")
    await administrator.close()
    fresh = await Database.connect(database_url, pool_size=1, system_pool_size=1, connect_timeout=timedelta(seconds=30))
    assert "pieces_vector_idx" in await plan(fresh, tenant, query)
    assert sorted(await by_meaning(fresh, tenant, query)) == list(range(10))
    await fresh.close()


async def test_the_index_serves_a_large_tenant_under_row_level_security(
    tenant: Tenant, database: Database, administrator_url: str
) -> None:
    (query,) = ENCODER.encode(["red lighthouse number 7"])
    await crowd(database, tenant, query, 3000)
    administrator = await asyncpg.connect(administrator_url)
    await administrator.execute("ANALYZE pieces; ANALYZE documents")
    await administrator.close()
    assert "pieces_vector_idx" in await plan(database, tenant, query)
