"""Sequencers die anywhere: no event is lost, none is in the tree twice, and every tree verifies."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from stationmaster_client.transparency import Checkpoint
from stationmaster_server.audit import checkpoint_store, sequencer, tree_store
from stationmaster_server.audit.checkpoints import Signer
from stationmaster_server.audit.log_keys import LogKeys
from stationmaster_server.audit.model import AuditEntry
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.identity.model import Caller

from tests.audit.conftest import KEY, running
from tests.audit.test_sequence import check_trail
from tests.audit.verified import export, signed, verify

ROUNDS = 4


async def write(log: AuditLog, database: Database, callers: list[Caller], count: int) -> None:
    """Events of several organizations, which nobody places yet."""
    async with database.system() as tx:
        entries = [(callers[n % len(callers)], AuditEntry(f"thing.{n}", "things/1")) for n in range(count)]
        await log.write_many(tx, entries)


async def check_trees(database: Database, callers: list[Caller], counts: list[int], seen: list[Checkpoint]) -> None:
    """All are placed once, and each organization's bundle verifies, from whatever checkpoint was seen before."""
    async with running(database) as server:
        for caller, count in zip(callers, counts, strict=True):
            await signed(server, caller, count)
            bundle = await export(server, caller)
            for checkpoint in seen:
                if checkpoint.origin.endswith(str(caller.tenant.organization_id)):
                    assert verify(bundle, caller, checkpoint).previous == checkpoint
            assert verify(bundle, caller).events >= count
    await check_trail(database)


async def kill_rounds(database: Database, url: str, callers: list[Caller], rounds: int, seed: int) -> None:
    """Two servers place at once; one dies, at a random moment, and another takes its part."""
    dice = random.Random(seed)
    log, written, seen = AuditLog(database), 0, []
    program = (sys.executable, "-m", "tests.audit.doomed_sequencer", url, KEY)
    for _ in range(rounds):
        await write(log, database, callers, 2000)
        written += 2000
        processes = [await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE) for _ in range(2)]
        try:
            # Either may have it all: one places at a time.
            told = [asyncio.create_task(process.stdout.readline()) for process in processes if process.stdout]
            done, waiting = await asyncio.wait(told, timeout=60, return_when=asyncio.FIRST_COMPLETED)
            assert done
            for task in waiting:
                task.cancel()
            await asyncio.sleep(dice.random() * 0.15)
        finally:
            for process in processes:
                process.kill()
                await process.wait()
        async with database.system(autocommit=True) as tx:
            assert await tx.fetchval("SELECT count(*) FROM audit_queue") <= written
        async with running(database) as server:
            for caller in callers:
                with contextlib.suppress(AssertionError):
                    seen.append(await signed(server, caller, 1))
    counts = [written // len(callers)] * len(callers)
    await check_trees(database, callers, counts, seen)


async def test_killed_sequencers_lose_nothing_and_place_nothing_twice(
    database: Database, database_url: str, caller: Caller, stranger: Caller
) -> None:
    await kill_rounds(database, database_url, [caller, stranger], ROUNDS, 1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 8))
async def test_many_killed_sequencers_lose_nothing(
    database: Database, database_url: str, caller: Caller, stranger: Caller, seed: int
) -> None:
    await kill_rounds(database, database_url, [caller, stranger], 15, seed)


STEPS: list[tuple[Any, str]] = [
    (tree_store, "lock"),
    (tree_store, "place"),
    (tree_store, "grow"),
    (checkpoint_store, "unsigned"),
    (checkpoint_store, "sign"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=lambda each: each if isinstance(each, str) else "")
async def test_a_failure_at_any_step_leaves_all_of_it_or_nothing(
    database: Database,
    caller: Caller,
    stranger: Caller,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    step: str,
    when: str,
) -> None:
    log, callers = AuditLog(database), [caller, stranger]
    await write(log, database, callers, 100)
    async with database.system() as tx:
        await sequencer.place(tx, 64)
    original: Callable[..., Any] = getattr(owner, step)
    failures = iter(range(2))

    async def failing(*args: Any) -> Any:
        if next(failures, None) is None:
            return await original(*args)
        if when == "after":
            await original(*args)
        raise ZeroDivisionError

    monkeypatch.setattr(owner, step, failing)
    signer = Signer(database, LogKeys(database, configured=KEY), every=timedelta(minutes=1))
    await signer.start()
    for _ in range(3):
        with contextlib.suppress(ZeroDivisionError):
            async with database.system() as tx:
                await sequencer.place(tx, 64)
        with contextlib.suppress(ZeroDivisionError):
            await signer.sign()
    await signer.close()
    await check_trees(database, callers, [50, 50], [])
