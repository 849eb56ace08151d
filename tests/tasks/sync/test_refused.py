"""A text that the embedding server refuses is passed over, and said to be; the others are embedded."""

from __future__ import annotations

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.embedding.embedder import TextRefused
from stationmaster_server.embedding.remote import RemoteEmbedder
from stationmaster_server.maintenance.services.sync import TaskSync
from stationmaster_server.tasks import search_store
from stationmaster_server.tasks.sync import store
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.model import Key
from stationmaster_server.tasks.sync.vector_index import VectorIndex

from tests.embedding.picky import Picky, embedder_of
from tests.maintenance.asked import asked
from tests.tasks.sync.changing import Changer

VECTORS = "task-vector-sync"
COUNT = 70


def sync_of(database: Database, embedder: RemoteEmbedder) -> Sync:
    return Sync(database, VECTORS, VectorIndex(database, embedder, VECTORS), in_database=True)


async def say(database: Database, tenant: Tenant, task_id: str, text: str) -> None:
    async with database.system() as tx:
        await tx.execute(
            """UPDATE tasks SET description = $3, text_etag = gen_random_uuid()::text, etag = gen_random_uuid()::text
               WHERE organization_id = $1 AND task_id = $2""",
            tenant.organization_id,
            task_id,
            text,
        )


async def write(database: Database, tenant: Tenant) -> None:
    """Tasks, one of which has a text that is refused."""
    changer = Changer(database, tenant, COUNT, seed=1)
    for number in range(COUNT):
        await changer.create(number)
    await say(database, tenant, "task-3", "a monster")


async def embedded(sync: Sync) -> set[Key]:
    """The tasks that have a vector."""
    return {key async for keys in sync.target.keys(at_once=20) for key in keys}


async def shown(database: Database) -> int:
    """How many are passed over, as people are told."""
    async with database.system(autocommit=True) as tx:
        (progress,) = (await store.progress(tx))[VECTORS]
    return progress.skipped


async def test_one_refused_text_holds_up_no_other_and_is_told_until_it_changes(
    database: Database, tenant: Tenant
) -> None:
    await write(database, tenant)
    monster = Key(tenant.organization_id, "task-3")
    async with embedder_of(Picky(["monster"])) as embedder:
        sync = sync_of(database, embedder)
        service = TaskSync(VECTORS, "A sync.", database, sync, ours=True)
        await sync.run()
        assert await sync.run() == 0  # the cursor went on
        assert len(await embedded(sync)) == COUNT - 1
        assert await sync.differences() == []
        assert list(await sync.target.skipped()) == [monster]
        told = await asked(service, "check", tenant)
        assert (told["differences"], told["skipped"]) == (0, 1)
        assert told["skipped_tasks"][0]["task"] == f"{tenant.organization_id}/tasks/task-3"
        assert "answered 400" in told["skipped_tasks"][0]["why"]
        assert await shown(database) == 1
        async with database.system(autocommit=True) as tx:
            lacking = await search_store.lacking_vectors(tx, embedder.name, 10, others=True)
        assert lacking == []  # nobody else tries again and again

        await say(database, tenant, "task-3", "a mouse")
        assert await shown(database) == 0
        assert await sync.run() == 1
        assert await sync.target.skipped() == {}
        assert await sync.differences() == []
        assert len(await embedded(sync)) == COUNT


async def test_a_resync_tries_refused_texts_again(database: Database, tenant: Tenant) -> None:
    await write(database, tenant)
    picky = Picky(["monster"])
    async with embedder_of(picky) as embedder:
        sync = sync_of(database, embedder)
        await sync.run()
        picky.refused = ()
        async with database.system() as tx:
            await tx.execute("UPDATE tasks SET display_name = display_name")
        await sync.run()
        assert await shown(database) == 1
        async with database.system() as tx:
            await store.next_generation(tx, VECTORS, "somebody")
        await sync.run()
        assert await sync.target.skipped() == {}
        assert await shown(database) == 0
        assert await sync.differences() == []


async def test_a_server_that_refuses_everything_is_a_failure_and_nothing_is_passed_over(
    database: Database, tenant: Tenant
) -> None:
    await write(database, tenant)
    picky = Picky([""])
    async with embedder_of(picky) as embedder:
        sync = sync_of(database, embedder)
        with pytest.raises(TextRefused):
            await sync.run()
        assert await sync.target.skipped() == {}
        picky.refused = ()
        assert await sync.run() == COUNT
