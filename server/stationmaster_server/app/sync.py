"""The sync of tasks to their targets, built: those of this database, and the stores that settings name."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from stationmaster_server.app.ground import Ground
from stationmaster_server.config import SettingsError
from stationmaster_server.config.sync import SyncTargets
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.maintenance.services.sync import KEEP_DAYS, TaskSync
from stationmaster_server.tasks.sync import store
from stationmaster_server.tasks.sync.changed import CHANNEL, Poke, nobody
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.graph_index import GraphIndex
from stationmaster_server.tasks.sync.model import VECTORS
from stationmaster_server.tasks.sync.refusals import Refusals
from stationmaster_server.tasks.sync.target import Target
from stationmaster_server.tasks.sync.vector_index import VectorIndex
from stationmaster_server.work.notifier import Notifier

_STORES = "stationmaster_server.tasks.sync.stores"
_GRAPH = "task-graph-sync"


def build_sync(stack: AsyncExitStack, on: Ground, refusals: Refusals) -> Poke:
    """Have every target kept in step; returns what is to be called when tasks changed."""
    database = on.database
    what = "Makes sure that every task has the vector of its text: embeds what the queue left over."
    vectors = VectorIndex(database, on.embedder, VECTORS, refusals)
    _add(on, VECTORS, what, vectors, ours=True)
    refused = "Texts of tasks that the encoder refused: they are skipped until they change."
    on.metrics.read("task_vector_sync_refused_texts", refused, lambda: refusals.count, total=True)
    what = (
        "Proves the levels of changed tasks, which new dependencies are judged by; makes them anew where they are off."
    )
    _add(on, _GRAPH, what, GraphIndex(database, _GRAPH), ours=True)
    what = "Forgets changes of tasks that every target has."
    on.background.add(
        Routine("task-change-cleanup", what, timedelta(minutes=10), lambda: _forget(database), scope=Scope.ONE_SERVER)
    )
    stores = list(stores_of(on.settings.sync.targets))
    for name, what, target in stores:
        _add(on, name, what, target, ours=False)
    if not stores:
        return nobody
    notifier = Notifier(database, CHANNEL)
    stack.push_async_callback(notifier.close)
    return notifier.poke


def _add(on: Ground, name: str, what: str, target: Target, *, ours: bool) -> None:
    on.background.add(TaskSync(name, what, on.database, Sync(on.database, name, target, in_database=ours), ours=ours))


def stores_of(targets: SyncTargets) -> Iterator[tuple[str, str, Target]]:
    """The stores that settings name: each with the service that keeps it in step. Raises SettingsError."""
    if targets.vectors.path is not None:
        what = "Keeps the store of vectors that settings name in step with tasks."
        yield "task-vector-store-sync", what, _store("vectors", "vector_store", "VectorStore", targets.vectors.path)
    if targets.graph.path is not None:
        what = "Keeps the store of the graph that settings name in step with tasks."
        yield "task-graph-store-sync", what, _store("graph", "graph_store", "GraphStore", targets.graph.path)
    if targets.text.path is not None:
        what = "Keeps the store of texts that settings name in step with tasks."
        yield "task-text-store-sync", what, _store("text", "text_store", "TextStore", targets.text.path)


def _store(setting: str, module: str, name: str, path: Path) -> Target:
    try:
        target: Target = getattr(importlib.import_module(f"{_STORES}.{module}"), name)(path)
    except ImportError as error:
        raise SettingsError(
            f"setting sync.targets.{setting}.path: {error}; install what it needs: pip install 'stationmaster[sync]'"
        ) from None
    return target


async def _forget(database: Database) -> None:
    async with database.system() as tx:
        await store.forget(tx, KEEP_DAYS)
