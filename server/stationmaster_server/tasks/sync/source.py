"""Tasks as they are now, read for targets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from uuid import UUID

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.tasks import store as tasks
from stationmaster_server.tasks.embeddings import text_of
from stationmaster_server.tasks.sync import store
from stationmaster_server.tasks.sync.model import About, Key, TaskState, Text


async def read(tx: Transaction, keys: Sequence[Key], about: Collection[About]) -> list[TaskState]:
    """The states of tasks, one for each key: what of them is asked for."""
    texts = await _texts(tx, keys) if About.TASK in about else {}
    edges = await store.edges_of(tx, keys) if About.EDGE in about else {}
    vectors = await store.vectors_of(tx, keys) if About.VECTOR in about else {}
    return [TaskState(key, texts.get(key), edges.get(key, ()), vectors.get(key)) for key in keys]


async def _texts(tx: Transaction, keys: Sequence[Key]) -> dict[Key, Text]:
    found: dict[Key, Text] = {}

    def organization(key: Key) -> UUID:
        return key.organization_id

    for organization_id, of_one in groupby(sorted(keys), organization):
        for task in await tasks.get_many(tx, organization_id, [key.task_id for key in of_one]):
            text = Text(task.kind, task.display_name, str(task.state), text_of(task), task.etag, task.text_etag)
            found[Key(organization_id, task.task_id)] = text
    return found
