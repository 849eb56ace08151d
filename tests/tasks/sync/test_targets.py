"""What a sync does when commits come late, targets are away, files are lost, and indexes are off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pyoxigraph
import pytest_asyncio
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.maintenance.services.sync import TaskSync
from stationmaster_server.maintenance.waking import RunFailed
from stationmaster_server.tasks import dependency_store
from stationmaster_server.tasks.model import FailurePolicy
from stationmaster_server.tasks.sync import store
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.model import Key, TaskState
from stationmaster_server.tasks.sync.stores.graph_store import GraphStore
from stationmaster_server.tasks.sync.stores.text_store import TextStore

from tests.fixtures.database import make_tenant
from tests.maintenance.conftest import Host, NotedAlarms, Start, host
from tests.tasks.sync.changing import Changer
from tests.tasks.sync.doomed import syncs
from tests.waiting import until

__all__ = ["host"]
TEXT, GRAPH, VECTORS = "task-text-store-sync", "task-graph-store-sync", "task-vector-store-sync"


@pytest_asyncio.fixture
async def made(database: Database, tmp_path: Path) -> AsyncIterator[Mapping[str, Sync]]:
    """Every target, of this process."""
    made = syncs(database, tmp_path)
    yield made
    for sync in made.values():
        await sync.close()


async def write(database: Database, tenant: Tenant, count: int = 3) -> Changer:
    """Some tasks."""
    changer = Changer(database, tenant, count, seed=1)
    for number in range(count):
        await changer.create(number)
    return changer


async def ids(sync: Sync) -> list[str]:
    """The tasks that a target has."""
    return sorted({key.task_id async for keys in sync.target.keys(at_once=2) for key in keys})


async def levels(database: Database, tenant: Tenant) -> Mapping[str, int]:
    """Those of a tenant's tasks, but 0."""
    async with database.system(autocommit=True) as tx:
        sql = "SELECT task_id, level FROM task_levels WHERE organization_id = $1 AND level > 0"
        return {row[0]: row[1] for row in await tx.fetch(sql, tenant.organization_id)}


async def test_a_change_that_is_committed_late_is_not_missed(
    database: Database, tenant: Tenant, made: Mapping[str, Sync]
) -> None:
    text = made[TEXT]
    await text.run()
    changer = await write(database, tenant, 1)
    late = Changer(database, tenant, 9, seed=2)
    async with database.system() as tx:
        await late._create(tx, "task-8")
        await changer.create(5)
        await text.run()
        assert await ids(text) == ["task-0"]  # what is after one under way waits with it
    await text.run()
    assert await ids(text) == ["task-0", "task-5", "task-8"]
    assert await text.run() == 0
    assert await text.differences() == []


async def test_changes_while_a_target_is_filled_are_not_missed(
    database: Database, tenant: Tenant, made: Mapping[str, Sync]
) -> None:
    await write(database, tenant, 60)
    changer, over = Changer(database, tenant, 60, seed=3), asyncio.Event()

    async def change() -> None:
        while not over.is_set():
            await changer.change()

    changing = asyncio.create_task(change())
    for sync in made.values():
        await sync.run()
    over.set()
    await changing
    while sum([await sync.run() for sync in made.values()]):
        pass
    for name, sync in made.items():
        assert await sync.differences() == [], name


async def test_a_target_that_is_away_is_alarmed_and_holds_up_no_other(
    database: Database, tenant: Tenant, made: Mapping[str, Sync], host: Start, tmp_path: Path
) -> None:
    (tmp_path / "text.db").mkdir()  # no file of SQLite
    services = [TaskSync(name, "A sync.", database, made[name], ours=False) for name in (TEXT, GRAPH)]
    started: Host = await host(*services)
    await write(database, tenant)
    alarms: NotedAlarms = started.alarms

    async def graph_is_there() -> bool:
        return await ids(made[GRAPH]) == ["task-0", "task-1", "task-2"]

    async def alarmed() -> bool:
        with suppress(RunFailed):
            await started.registry.runner(TEXT).run_now()
        return any(name == TEXT and "text.db cannot be used" in text for name, text in alarms.told)

    await until(alarmed)
    await until(graph_is_there)
    assert all(name == TEXT for name, _ in alarms.told)
    (tmp_path / "text.db").rmdir()

    async def well() -> bool:
        await started.registry.runner(TEXT).run_now()
        return alarms.told[-1] == (TEXT, "")

    await until(well)
    assert await ids(made[TEXT]) == ["task-0", "task-1", "task-2"]


async def test_files_are_written_by_one_process_and_taken_over_from_it(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    await write(database, tenant)
    first, second = (Sync(database, TEXT, TextStore(tmp_path / "text.db")) for _ in range(2))
    assert await first.run() == 3
    assert await second.run() == 0
    await first.close()
    assert await second.run() == 0  # there is nothing left to do
    assert await ids(second) == ["task-0", "task-1", "task-2"]
    await second.close()


async def test_lost_files_and_forgotten_changes_are_made_up_for_from_nothing(
    database: Database, tenant: Tenant, made: Mapping[str, Sync], tmp_path: Path
) -> None:
    text = made[TEXT]
    await write(database, tenant)
    await text.run()
    await text.close()
    saved = (tmp_path / "text.db").read_bytes()
    changer = Changer(database, tenant, 9, seed=4)
    await changer.create(7)
    await text.run()
    await text.close()
    async with database.system() as tx:
        assert await store.forget(tx, 7) > 0
    (tmp_path / "text.db").write_bytes(saved)  # from a backup, whose cursor is before what was forgotten
    await text.run()
    assert await text.differences() == []
    assert len(await ids(text)) == 4
    await text.close()
    (tmp_path / "text.db").unlink()
    assert await text.run() == 4
    assert await text.differences() == []


async def test_changes_are_kept_until_every_target_has_them(
    database: Database, tenant: Tenant, made: Mapping[str, Sync]
) -> None:
    for sync in made.values():
        await sync.run()
    await write(database, tenant)
    await made[TEXT].run()
    async with database.system() as tx:
        await store.forget(tx, 7)
        progress = await store.progress(tx)
    (text,), (graph,) = progress[TEXT], progress[GRAPH]
    assert (text.waiting, graph.waiting) == (0, 3)
    assert graph.lag_seconds > 0
    for sync in made.values():
        await sync.run()
        assert await sync.differences() == []
    await made[VECTORS].run()
    async with database.system() as tx:
        await store.forget(tx, 7)
        assert await tx.fetchval("SELECT count(*) FROM task_changes") == 0


async def test_levels_that_are_off_are_found_and_made_anew(
    database: Database, tenant: Tenant, made: Mapping[str, Sync]
) -> None:
    graph = made["task-graph-sync"]
    await write(database, tenant)
    async with database.system() as tx:
        await tx.execute(
            """INSERT INTO task_dependencies (organization_id, task_id, depends_on, on_failure)
               VALUES ($1, 'task-1', 'task-0', 'BLOCK'), ($1, 'task-2', 'task-1', 'BLOCK')""",
            tenant.organization_id,
        )  # without their levels
    assert len(await graph.differences()) == 2
    await graph.run()
    assert await graph.differences() == []
    assert await levels(database, tenant) == {"task-1": 1, "task-2": 2}


async def test_a_cycle_that_somebody_planted_is_told_and_holds_up_no_other_organization(
    database: Database, tenant: Tenant, made: Mapping[str, Sync]
) -> None:
    graph, other = made["task-graph-sync"], await make_tenant(database)
    edges = """INSERT INTO task_dependencies (organization_id, task_id, depends_on, on_failure)
               VALUES ($1, 'task-1', 'task-0', 'BLOCK'), ($1, $2, 'task-1', 'BLOCK')"""
    for number, owner in enumerate((tenant, other)):
        await write(database, owner)
        async with database.system() as tx:
            await tx.execute(edges, owner.organization_id, f"task-{2 * number}")  # of the first: task-0
    await graph.run()
    off = await graph.differences()
    assert {key.organization_id for key in off} <= {tenant.organization_id}
    assert await levels(database, other) == {"task-1": 1, "task-2": 2}
    assert await graph.run() == 0  # the cursor went on
    async with database.system() as tx:
        await tx.execute(
            "DELETE FROM task_dependencies WHERE organization_id = $1 AND task_id = 'task-0'", tenant.organization_id
        )
    await graph.run()
    assert await graph.differences() == []


async def test_differences_are_found(database: Database, tenant: Tenant, made: Mapping[str, Sync]) -> None:
    await write(database, tenant)
    while sum([await sync.run() for sync in made.values()]):
        pass
    key = Key(tenant.organization_id, "task-1")
    for name in (TEXT, VECTORS, GRAPH):
        sync = made[name]
        cursor = await sync.target.cursor()
        assert cursor is not None
        await sync.target.apply([TaskState(key)], cursor)  # as if it were gone
        assert await sync.differences() == [key], name


async def test_a_copy_of_the_graph_is_asked_by_sparql_while_it_is_written(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    store_of_graph = GraphStore(tmp_path / "graph", copy_every=timedelta(0))
    graph = Sync(database, GRAPH, store_of_graph)
    await write(database, tenant)
    for edge in (("task-2", "task-1"), ("task-1", "task-0")):
        async with database.system() as tx:
            await dependency_store.insert(tx, tenant.organization_id, *edge, FailurePolicy.SKIP)
        await graph.run()  # writes it
        await graph.run()  # copies it
    assert _reached(str(store_of_graph.copy.latest), tenant.organization_id) == ["task-0", "task-1"]
    assert len(list((tmp_path / "graph.copies").iterdir())) == 2
    assert await graph.differences() == []
    await graph.close()


def _reached(path: str, organization: UUID) -> Sequence[str]:
    graph = f"urn:stationmaster:organizations/{organization}"
    query = f"""SELECT ?other WHERE {{ GRAPH <{graph}> {{
        <{graph}/tasks/task-2> <urn:stationmaster:dependsOn>+ ?other }} }}"""
    found = pyoxigraph.Store.read_only(path).query(query)
    assert isinstance(found, pyoxigraph.QuerySolutions)
    return sorted(row["other"].value.rpartition("/")[2] for row in found)
