"""A process that keeps every target in step until it is killed: `python -m tests.tasks.sync.doomed URL FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from stationmaster_server.db.engine import Database
from stationmaster_server.embedding.encoder import Vector
from stationmaster_server.embedding.hashing import HashingEncoder
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.graph_index import GraphIndex
from stationmaster_server.tasks.sync.stores.graph_store import GraphStore
from stationmaster_server.tasks.sync.stores.text_store import TextStore
from stationmaster_server.tasks.sync.stores.vector_store import VectorStore
from stationmaster_server.tasks.sync.target import Target
from stationmaster_server.tasks.sync.vector_index import VectorIndex


class Embedder:
    """The encoder that every server has, in this process."""

    name = "hashing"
    unrelated = 0.0

    def __init__(self) -> None:
        self._encoder = HashingEncoder()

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each text."""
        return await asyncio.to_thread(self._encoder.encode, texts)


def syncs(database: Database, folder: Path) -> dict[str, Sync]:
    """Every target that there is, by its service."""
    stores: dict[str, Target] = {
        "task-vector-store-sync": VectorStore(folder / "vectors.db"),
        "task-graph-store-sync": GraphStore(folder / "graph"),
        "task-text-store-sync": TextStore(folder / "text.db"),
    }
    ours: dict[str, Target] = {
        "task-vector-sync": VectorIndex(database, Embedder(), "task-vector-sync"),
        "task-graph-sync": GraphIndex(database, "task-graph-sync"),
    }
    made = {name: Sync(database, name, target, in_database=True) for name, target in ours.items()}
    made |= {name: Sync(database, name, target) for name, target in stores.items()}
    for sync in made.values():
        sync.batch_size = 20
    return made


async def main(url: str, folder: Path) -> None:
    """Say when it begins, and sync for ever."""
    database = await Database.connect(url, pool_size=1, system_pool_size=6, connect_timeout=timedelta(seconds=10))
    sys.stdout.write("running\n")
    sys.stdout.flush()

    async def keep(sync: Sync) -> None:
        while True:
            await sync.run()
            await asyncio.sleep(0.01)

    await asyncio.gather(*(keep(sync) for sync in syncs(database, folder).values()))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
