"""What is in the database moves with it; what is beside it is filled anew when the database is another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from stationmaster_server.db.embedded.server import Membership
from stationmaster_server.db.engine import Database
from stationmaster_server.db.migrate import migrate
from stationmaster_server.db.model import Tenant
from stationmaster_server.embedding.encoder import Vector
from stationmaster_server.tasks.sync import store
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.graph_index import GraphIndex
from stationmaster_server.tasks.sync.stores.text_store import TextStore
from stationmaster_server.tasks.sync.vector_index import VectorIndex

from tests.fixtures.database import make_tenant
from tests.fixtures.scratch import scratch
from tests.tasks.sync.changing import Changer
from tests.tasks.sync.doomed import Embedder
from tests.waiting import until

VECTORS, GRAPH, TEXT = "task-vector-sync", "task-graph-sync", "task-text-store-sync"
COUNT = 5


class Counting(Embedder):
    """Counts what it embeds."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text."""
        self.count += len(texts)
        return await super().embed(texts)


def vectors_of(database: Database, embedder: Embedder) -> Sync:
    return Sync(database, VECTORS, VectorIndex(database, embedder, VECTORS), in_database=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder of its own."""
    with scratch("stationmaster-tests-") as path:
        yield path


@contextmanager
def postgres(folder: Path) -> Iterator[Membership]:
    member = Membership.join(folder, settings={"restore_command": "false", "fsync": "off"}, minimum_free_bytes=0)
    try:
        yield member
    finally:
        member.leave()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Database]:
    database = await Database.connect(url, pool_size=1, system_pool_size=2, connect_timeout=timedelta(seconds=60))
    try:
        yield database
    finally:
        await database.close()


async def timeline(database: Database) -> int:
    """Of what is written, once anything may be; the last checkpoint may still be of the one before."""

    async def written() -> int | None:
        async with database.system(autocommit=True) as tx:
            if await tx.fetchval("SELECT pg_is_in_recovery()"):
                return None
            return int(await tx.fetchval("SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"), 16)

    number = await until(written)
    assert number is not None
    return number


async def test_a_promotion_embeds_nothing_anew_and_fills_stores_beside_the_database(folder: Path) -> None:
    with postgres(folder) as member:
        await migrate(member.cluster.url())
        async with connected(member.cluster.url()) as database:
            changer = Changer(database, await make_tenant(database), COUNT, seed=1)
            for number in range(COUNT):
                await changer.create(number)
            before = Counting()
            text = Sync(database, TEXT, TextStore(folder / "text.db"))
            assert await vectors_of(database, before).run() == COUNT
            assert before.count == COUNT
            assert await text.run() == COUNT
            assert await text.run() == 0
            await text.close()
            old = await timeline(database)
        (member.cluster.pgdata / "recovery.signal").touch()  # as one that is promoted
        member.cluster.account.own(member.cluster.pgdata / "recovery.signal")
    with postgres(folder) as member:
        async with connected(member.cluster.url()) as database:
            assert await timeline(database) == old + 1
            after = Counting()
            vectors, text = vectors_of(database, after), Sync(database, TEXT, TextStore(folder / "text.db"))
            assert await vectors.run() == 0
            assert after.count == 0
            assert await text.run() == COUNT
            for sync in (vectors, text):
                assert await sync.differences() == []
            await text.close()


async def test_every_vector_is_made_anew_only_when_somebody_asked_for_it(database: Database, tenant: Tenant) -> None:
    changer, embedder = Changer(database, tenant, COUNT, seed=1), Counting()
    vectors = vectors_of(database, embedder)
    for number in range(COUNT):
        await changer.create(number)
    await vectors.run()
    async with database.system() as tx:
        await tx.execute("DELETE FROM sync_cursors")
    assert await vectors.run() == COUNT  # looked at from nothing
    assert embedder.count == COUNT
    async with database.system() as tx:
        await store.next_generation(tx, VECTORS, "somebody")
    assert await vectors.run() == COUNT
    assert await vectors.run() == 0
    assert embedder.count == 2 * COUNT
    assert await vectors.differences() == []


async def test_levels_are_proven_from_nothing(database: Database, tenant: Tenant) -> None:
    changer = Changer(database, tenant, COUNT, seed=1)
    for number in range(COUNT):
        await changer.create(number)
    graph = Sync(database, GRAPH, GraphIndex(database, GRAPH), in_database=True)
    await graph.run()
    async with database.system() as tx:
        await tx.execute(
            "INSERT INTO task_levels (organization_id, task_id, level) VALUES ($1, 'task-2', 7), ($1, 'nobody', 3)",
            tenant.organization_id,
        )
    assert await graph.run() == 0  # nothing tells of it
    assert [key.task_id for key in await graph.differences()] == ["nobody", "task-2"]
    async with database.system() as tx:
        await store.next_generation(tx, GRAPH, "somebody")
    await graph.run()
    assert await graph.differences() == []
