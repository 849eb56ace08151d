"""A fill from nothing that is cut short goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.embedding.encoder import Vector
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.model import Cursor, TaskState
from stationmaster_server.tasks.sync.vector_index import VectorIndex

from tests.tasks.sync.changing import Changer
from tests.tasks.sync.doomed import Embedder, syncs

ALL = ["task-vector-sync", "task-graph-sync", "task-vector-store-sync", "task-graph-store-sync", "task-text-store-sync"]
COUNT = 100
BATCH = 20


class Cut(Exception):
    """The run ends here, as at its time limit."""


async def cut_run(sync: Sync, monkeypatch: pytest.MonkeyPatch, *, after: int) -> bool:
    """A run that is cut before the batch after so many; tells whether it was."""
    left, apply = after, sync.target.apply

    async def cut(states: Sequence[TaskState], cursor: Cursor) -> None:
        nonlocal left
        if not left:
            raise Cut
        left -= 1
        await apply(states, cursor)

    with monkeypatch.context() as patched:
        patched.setattr(sync.target, "apply", cut)
        try:
            await sync.run()
        except Cut:
            return True
        return False


@pytest.mark.parametrize("name", ALL)
async def test_a_fill_that_is_cut_again_and_again_ends_and_is_exact(
    database: Database, tenant: Tenant, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changer = Changer(database, tenant, COUNT, seed=1)
    for number in range(COUNT):
        await changer.create(number)
    if name == "task-vector-store-sync":
        await syncs(database, tmp_path)["task-vector-sync"].run()
    cuts = 0
    while True:
        sync = syncs(database, tmp_path)[name]  # as after a restart
        if not await cut_run(sync, monkeypatch, after=2):
            break
        await sync.close()
        cuts += 1
        assert cuts <= COUNT // BATCH
        for _ in range(3):
            await changer.change()  # also of what is filled already
    while await sync.run():
        pass
    assert cuts > 1
    if name == "task-vector-store-sync":
        await syncs(database, tmp_path)["task-vector-sync"].run()
        await sync.run()
    assert await sync.differences() == []
    await sync.close()


class Slow(Embedder):
    """Notes what it embeds, and is cut when that is more than it has time for."""

    def __init__(self, time_for: int) -> None:
        super().__init__()
        self.time_for = time_for
        self.embedded: list[str] = []

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text."""
        self.time_for -= len(texts)
        if self.time_for < 0:
            raise Cut
        self.embedded += texts
        return await super().embed(texts)


async def test_what_was_embedded_before_a_cut_is_not_embedded_again(database: Database, tenant: Tenant) -> None:
    changer = Changer(database, tenant, COUNT, seed=1)
    for number in range(COUNT):
        await changer.create(number)
    embedded: list[str] = []
    for _ in range(5):
        slow = Slow(time_for=64)  # of one batch
        sync = Sync(database, "task-vector-sync", VectorIndex(database, slow, "task-vector-sync"), in_database=True)
        with suppress(Cut):
            await sync.run()
        embedded += slow.embedded
    assert await sync.differences() == []
    assert len(embedded) == COUNT
