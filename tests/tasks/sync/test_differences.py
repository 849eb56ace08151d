"""Differences are found wherever they are, though no more than a batch is looked at at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import apsw
import pytest
import sqlite_vec
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.tasks.sync import source
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.model import Embedded, Key, TaskState, Text
from stationmaster_server.tasks.sync.target import TargetAway

from tests.tasks.sync.changing import Changer
from tests.tasks.sync.doomed import Embedder, syncs

TEXT, GRAPH, VECTORS = "task-text-store-sync", "task-graph-store-sync", "task-vector-store-sync"
COUNT, BATCH = 9, 3
FIRST, LAST = UUID(int=1), UUID(int=2**128 - 1)


async def filled(database: Database, tenant: Tenant, folder: Path, name: str) -> Sync:
    """A target that has the tasks `task-0` to `task-8`, and is compared three at a time."""
    changer, made = Changer(database, tenant, COUNT, seed=1), syncs(database, folder)
    for number in range(COUNT):
        await changer.create(number)
    await made["task-vector-sync"].run()
    sync = made[name]
    await sync.run()
    sync.batch_size = BATCH
    assert await sync.differences() == []
    return sync


async def put(sync: Sync, states: Sequence[TaskState]) -> None:
    """Have it hold this."""
    cursor = await sync.target.cursor()
    assert cursor is not None
    await sync.target.apply(states, cursor)


async def others(keys: Sequence[Key]) -> list[TaskState]:
    """States that none of the tasks has."""
    (vector,) = await Embedder().embed(["other"])
    embedded = Embedded("other", "other", bytes(4 * len(vector)))
    return [TaskState(key, Text("webhook", "other", "ACTIVE", "other", "other", "other"), (), embedded) for key in keys]


@pytest.mark.parametrize("name", [TEXT, GRAPH, VECTORS])
async def test_each_task_that_a_store_lacks_or_has_otherwise_is_found(
    database: Database, tenant: Tenant, tmp_path: Path, name: str
) -> None:
    sync = await filled(database, tenant, tmp_path, name)
    for number in range(COUNT):
        key = Key(tenant.organization_id, f"task-{number}")
        for wrong in (TaskState(key), *await others([key])):
            await put(sync, [wrong])
            assert await sync.differences() == [key]
        async with database.system(autocommit=True) as tx:
            right = await source.read(tx, [key], sync.target.about)
        await put(sync, right)
    assert await sync.differences() == []
    await sync.close()


@pytest.mark.parametrize("name", [TEXT, GRAPH, VECTORS])
async def test_what_only_a_store_has_is_found_before_between_and_after_the_tasks(
    database: Database, tenant: Tenant, tmp_path: Path, name: str
) -> None:
    sync = await filled(database, tenant, tmp_path, name)
    ours = tenant.organization_id
    ids = ["a", "task", "task-00", "task-2-a", "task-20", "task_3", "task.3", *(f"z-{number}" for number in range(7))]
    strays = [Key(FIRST, "task-1"), *(Key(ours, one) for one in ids), Key(LAST, "task-1")]
    for stray in strays:
        await put(sync, await others([stray]))
        assert await sync.differences() == [stray]
        await put(sync, [TaskState(stray)])
    lacking = [Key(ours, f"task-{number}") for number in (0, 2, 3, 8)]
    await put(sync, [*await others(strays), *(TaskState(key) for key in lacking)])
    assert await sync.differences() == sorted([*strays, *lacking])
    assert max([len(keys) async for keys in sync.target.keys(BATCH)]) == BATCH
    async with database.system() as tx:
        await tx.execute("DELETE FROM tasks")
    there = [Key(ours, f"task-{number}") for number in (1, 4, 5, 6, 7)]
    assert await sync.differences() == sorted([*strays, *there])
    await sync.close()


@pytest.mark.parametrize(("name", "file"), [(TEXT, "text.db"), (VECTORS, "vectors.db")])
async def test_what_is_of_no_task_in_a_file_is_not_overlooked(
    database: Database, tenant: Tenant, tmp_path: Path, name: str, file: str
) -> None:
    sync = await filled(database, tenant, tmp_path, name)
    connection = apsw.Connection(str(tmp_path / file))
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    connection.execute("DELETE FROM tasks WHERE task_id = 'task-4'")
    connection.close()
    with pytest.raises(TargetAway, match=r"1 (texts|vectors) in it are of no task"):
        await sync.differences()
    await sync.close()


async def test_each_vector_that_is_lacking_or_of_another_text_is_found(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    sync = await filled(database, tenant, tmp_path, "task-vector-sync")
    off = [Key(tenant.organization_id, f"task-{number}") for number in range(COUNT)]
    for number, key in enumerate(off):
        change = "DELETE FROM task_vectors" if number % 2 else "UPDATE task_vectors SET etag = 'other'"
        async with database.system() as tx:
            await tx.execute(f"{change} WHERE organization_id = $1 AND task_id = $2", *key)
        assert await sync.differences() == off[: number + 1]


async def test_each_level_that_is_off_or_of_no_task_is_found(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    sync = await filled(database, tenant, tmp_path, "task-graph-sync")
    off: list[Key] = []
    for task_id in [*(f"task-{number}" for number in range(COUNT)), "a", "task-20", *(f"z-{n}" for n in range(7))]:
        off.append(Key(tenant.organization_id, task_id))
        async with database.system() as tx:
            await tx.execute(
                """INSERT INTO task_levels (organization_id, task_id, level) VALUES ($1, $2, 1)
                   ON CONFLICT (organization_id, task_id) DO UPDATE SET level = 1""",
                *off[-1],
            )
        assert await sync.differences() == sorted(off)
