"""A resync is done when the targets are filled anew: neither before that has begun, nor before it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.maintenance.base import NotYet
from stationmaster_server.maintenance.services.sync import TaskSync
from stationmaster_server.tasks.sync import engine
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.model import Cursor, TaskState
from stationmaster_server.tasks.sync.stores.text_store import TextStore
from stationmaster_server.tasks.sync.target import TargetAway

from tests.maintenance.asked import asked
from tests.tasks.sync.changing import Changer
from tests.waiting import until

TEXT = "task-text-store-sync"


class Gate(TextStore):
    """A store whose next write waits until it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.open_gate = asyncio.Event()
        self.waits = asyncio.Event()

    async def apply(self, states: Sequence[TaskState], cursor: Cursor) -> None:
        """Wait, and write."""
        self.waits.set()
        await self.open_gate.wait()
        await super().apply(states, cursor)


def sync_at(database: Database, path: Path) -> Sync:
    return Sync(database, TEXT, TextStore(path))


def service_of(database: Database, sync: Sync) -> TaskSync:
    return TaskSync(TEXT, "A sync.", database, sync, ours=False)


@pytest.fixture
async def three(database: Database, tenant: Tenant) -> None:
    """Three tasks."""
    changer = Changer(database, tenant, 3, seed=1)
    for number in range(3):
        await changer.create(number)


@pytest.mark.usefixtures("three")
async def test_a_resync_waits_for_the_process_that_holds_the_store_from_the_first_fill_on(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "text.db")
    holder, asking = Sync(database, TEXT, gate), service_of(database, sync_at(database, tmp_path / "text.db"))
    await gate.open()
    with pytest.raises(NotYet):  # nobody has told of the store
        await asked(asking, "resync", tenant)
    running = asyncio.create_task(holder.run())
    await gate.waits.wait()
    with pytest.raises(NotYet):  # it is being filled
        await asked(asking, "resync", tenant)
    gate.open_gate.set()
    await running
    told = await asked(asking, "resync", tenant)
    assert told == {"generation": 1, "filled": [gate.place], "not_filled": []}
    with pytest.raises(NotYet):  # it is filled, but not anew
        await asked(asking, "resync", tenant, ask="another")
    assert await holder.run() == 3
    assert (await asked(asking, "resync", tenant, ask="another"))["generation"] == 2
    await holder.close()


@pytest.mark.usefixtures("three")
async def test_a_resync_that_is_tried_again_does_not_begin_anew(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    sync = sync_at(database, tmp_path / "text.db")
    service = service_of(database, sync)
    for _ in range(2):
        assert (await asked(service, "resync", tenant))["generation"] == 1
        assert await sync.run() == 0
    await sync.close()


@pytest.mark.usefixtures("three")
async def test_a_target_whose_writing_takes_long_is_waited_for(
    database: Database, tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_TELL_AGAIN", 0.05)
    gate = Gate(tmp_path / "text.db")
    holder, asking = Sync(database, TEXT, gate), service_of(database, sync_at(database, tmp_path / "text.db"))
    running = asyncio.create_task(holder.run())
    await gate.waits.wait()
    async with database.system() as tx:
        await tx.execute("UPDATE sync_cursors SET seen_at = now() - interval '1 hour'")

    async def seen() -> bool:
        async with database.system(autocommit=True) as tx:
            return bool(await tx.fetchval("SELECT seen_at > now() - interval '1 minute' FROM sync_cursors"))

    await until(seen)
    with pytest.raises(NotYet):
        await asked(asking, "resync", tenant)
    gate.open_gate.set()
    await running
    await holder.close()


@pytest.mark.usefixtures("three")
async def test_what_nobody_fills_is_not_told_to_be_filled(database: Database, tenant: Tenant, tmp_path: Path) -> None:
    gone, here = sync_at(database, tmp_path / "gone.db"), sync_at(database, tmp_path / "text.db")
    await gone.run()
    await gone.close()
    held = TextStore(tmp_path / "text.db")
    await held.open()
    service = service_of(database, here)
    with pytest.raises(NotYet):
        await asked(service, "resync", tenant)
    async with database.system() as tx:  # nobody was seen for an hour
        await tx.execute("UPDATE sync_cursors SET seen_at = now() - interval '1 hour'")
        await tx.execute("UPDATE sync_generations SET asked_at = now() - interval '1 hour'")
    with pytest.raises(TargetAway, match=r"gone\.db"):
        await asked(service, "resync", tenant)
    await held.close()
    told = await asked(service, "resync", tenant)
    assert (told["filled"], told["not_filled"]) == ([here.target.place], [gone.target.place])
    await here.close()


@pytest.mark.usefixtures("three")
async def test_two_resyncs_at_once_are_both_done_by_what_the_later_one_asked_for(
    database: Database, tenant: Tenant, tmp_path: Path
) -> None:
    holder, asking = (
        sync_at(database, tmp_path / "text.db"),
        service_of(database, sync_at(database, tmp_path / "text.db")),
    )
    await holder.run()
    earlier, later = str(new_id()), str(new_id())
    for ask in (earlier, later):
        with pytest.raises(NotYet):
            await asked(asking, "resync", tenant, ask=ask)
    assert await holder.run() == 3
    for ask in (earlier, later):
        assert (await asked(asking, "resync", tenant, ask=ask))["generation"] == 2
    assert await holder.run() == 0
    await holder.close()
