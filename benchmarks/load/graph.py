"""The graph of dependencies: edges added to a large one, in the load's process."""

from __future__ import annotations

import random
import time
import uuid
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.partitions import ensure_every_partition
from stationmaster_server.tasks import dependency_store, store
from stationmaster_server.tasks.dependencies import Dependencies
from stationmaster_server.tasks.model import FailurePolicy, Task
from stationmaster_server.tasks.sync.changed import nobody

from benchmarks.stats import percentile

_LAYERS = 40
_EACH = 5
"""Dependencies of a task, all in the layer below."""
_COLUMNS = """SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns
              WHERE table_name = 'tasks' AND is_generated = 'NEVER' AND column_name NOT IN ('task_id', 'uid')"""


async def make_graph(*, url: str, edges: int) -> dict[str, Any]:
    """A tenant with a graph of so many edges, in layers."""
    database = await _connect(url)
    tenant = Tenant(new_id(), new_id())
    try:
        await ensure_every_partition(database, 1)
        async with database.system() as tx:
            task = Task("t0", uid=new_id(), user_id=tenant.user_id, kind="prompt", etag="e")
            await store.insert(tx, tenant.organization_id, task)
    finally:
        await database.close()
    count = edges // _EACH + edges // _EACH // (_LAYERS - 1)
    width = count // _LAYERS
    owner = await asyncpg.connect(url)
    others = await owner.fetchval(_COLUMNS)
    await owner.execute(
        f"""INSERT INTO tasks (task_id, uid, {others}) SELECT 't' || n, gen_random_uuid(), {others} FROM tasks,
            generate_series(1, $2::int) n WHERE organization_id = $1 AND task_id = 't0'""",
        tenant.organization_id,
        count - 1,
    )
    dice = random.Random(1)
    made = [
        (f"t{number}", f"t{below}")
        for number in range(width, width * _LAYERS)
        for below in dice.sample(range((number // width - 1) * width, number // width * width), _EACH)
    ]
    await owner.execute(
        """INSERT INTO task_dependencies (organization_id, task_id, depends_on, on_failure)
           SELECT $1, *, 'BLOCK' FROM unnest($2::text[], $3::text[])""",
        tenant.organization_id,
        *map(list, zip(*made, strict=True)),
    )
    await owner.execute(
        "INSERT INTO task_levels SELECT $1, 't' || n, n / $3 FROM generate_series(0, $2::int) n WHERE n >= $3",
        tenant.organization_id,
        width * _LAYERS - 1,
        width,
    )
    await owner.execute("ANALYZE tasks")
    await owner.execute("ANALYZE task_dependencies")
    await owner.execute("ANALYZE task_levels")
    await owner.close()
    ids = [str(tenant.organization_id), str(tenant.user_id)]
    return {"tenant": ids, "edges": len(made), "width": width}


async def add_edges(*, url: str, tenant: list[str], width: int, count: int, seed: int) -> dict[str, float]:
    """The median seconds that AddDependency takes in process: an edge from a layer to one below."""
    database = await _connect(url)
    who = Tenant(*map(uuid.UUID, tenant))
    caller = Caller(who, Role.OWNER, frozenset(), None, "bench", "bench", "", "")
    services: Any = SimpleNamespace(database=database, audit=AuditLog(database), changed=nobody)
    dependencies = Dependencies(services)
    try:
        took = []
        for task, below in _pairs(width, count, seed):
            began = time.perf_counter()
            await dependencies.add(caller, task, below, FailurePolicy.BLOCK)
            took.append(time.perf_counter() - began)
        return {"p50": percentile(took, 0.5)}
    finally:
        await database.close()


async def bare_edges(*, url: str, tenant: list[str], width: int, count: int, seed: int) -> dict[str, float]:
    """The median seconds of inserting such an edge, and nothing else, in a transaction."""
    database = await _connect(url)
    who = Tenant(*map(uuid.UUID, tenant))
    try:
        took = []
        for task, below in _pairs(width, count, seed):
            began = time.perf_counter()
            async with database.system() as tx:
                await dependency_store.insert(tx, who.organization_id, task, below, FailurePolicy.BLOCK)
            took.append(time.perf_counter() - began)
        return {"p50": percentile(took, 0.5)}
    finally:
        await database.close()


def _pairs(width: int, count: int, seed: int) -> list[tuple[str, str]]:
    """Edges that go over at least one layer, so that none is there yet."""
    dice, found = random.Random(seed), set[tuple[str, str]]()
    while len(found) < count:
        low = dice.randrange(_LAYERS - 2)
        high = dice.randrange(low + 2, _LAYERS)
        found.add((f"t{high * width + dice.randrange(width)}", f"t{low * width + dice.randrange(width)}"))
    return sorted(found)


async def _connect(url: str) -> Database:
    return await Database.connect(url, pool_size=2, system_pool_size=2, connect_timeout=timedelta(seconds=30))
