"""Whatever changes, and however often the process that syncs is killed: in the end every target is as the source is."""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.tasks.sync import store
from stationmaster_server.tasks.sync.engine import Sync

from tests.fixtures.database import make_tenant
from tests.tasks.sync.changing import Changer
from tests.tasks.sync.doomed import syncs


async def kill_now_and_then(url: str, folder: Path, kills: int, chance: random.Random) -> None:
    """Sync in a process that is killed so often, at any moment."""
    for _ in range(kills):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.tasks.sync.doomed", url, str(folder), stdout=PIPE
        )
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"running\n"
            await asyncio.sleep(chance.uniform(0.02, 1.0))
            assert process.returncode is None
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def settled(made: Mapping[str, Sync]) -> None:
    """Every target has every change, the vectors that were made meanwhile included."""
    while sum([await sync.run() for sync in made.values()]):
        pass


async def hammer(database: Database, url: str, folder: Path, count: int, kills: int) -> None:
    chance = random.Random(count)
    changers = [Changer(database, await make_tenant(database), count // 2, seed) for seed in range(2)]
    for changer in changers:
        for number in range(count // 2):
            await changer.create(number)
    over = False

    async def change(changer: Changer) -> int:
        made = 0
        while not over:
            await changer.change()
            made += 1
        return made

    changing = [asyncio.create_task(change(changer)) for changer in [*changers, *changers]]
    try:
        await kill_now_and_then(url, folder, kills, chance)
        async with database.system() as tx:
            await store.forget(tx, 7)  # what every target has is of no use
        await kill_now_and_then(url, folder, 1, chance)
    finally:
        over = True
        made = sum(await asyncio.gather(*changing))
    assert made > count  # nothing was tried while nothing changed
    made_here = syncs(database, folder)
    await settled(made_here)
    for name, sync in made_here.items():
        assert await sync.differences() == [], name
        await sync.close()
    async with database.system(autocommit=True) as tx:
        tasks = await tx.fetchval("SELECT count(*) FROM tasks")
        vectors = await tx.fetchval(
            """SELECT count(*) FROM task_vectors v JOIN tasks t USING (organization_id, task_id)
                                     WHERE v.etag = t.text_etag"""
        )
        waiting = [one.waiting for of_service in (await store.progress(tx)).values() for one in of_service]
    assert tasks == vectors > count // 10
    assert waiting == [0] * len(made_here)


async def test_targets_are_exact_however_often_their_process_is_killed(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    await hammer(database, database_url, tmp_path, count=300, kills=3)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_ten_thousand_tasks_are_exact_after_twenty_five_kills(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    await hammer(database, database_url, tmp_path, count=10_000, kills=25)
