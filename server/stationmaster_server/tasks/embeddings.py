"""Vectors of tasks: made in the background when a task is created or its text changes, by a work item of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.embedding.each import embed_each
from stationmaster_server.embedding.embedder import TextRefused
from stationmaster_server.errors import Aborted, NotFound, Reason, ResourceExhausted, Unavailable
from stationmaster_server.identity.model import owner_scope
from stationmaster_server.tasks import search_store, store
from stationmaster_server.tasks.model import Task, task_name
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.sync.changed import tell
from stationmaster_server.tasks.sync.model import Key
from stationmaster_server.work import store as work_store
from stationmaster_server.work.model import NewWork, OnConflict, Outcome, Priority, Released, State, Succeeded, WorkItem
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.run import Run

KIND = "task_embed"
_MOST_CHARACTERS = 20_000


def text_of(task: Task) -> str:
    """What a task is found by: its names, description, labels and the texts of its payload."""
    labels = [f"{key} {value}" for key, value in task.labels.items()]
    parts = [task.task_id.replace("-", " "), task.display_name, task.description, *labels, *_texts(task.payload)]
    return "\n".join(part for part in parts if part)[:_MOST_CHARACTERS]


def _texts(value: object) -> list[str]:
    match value:
        case str():
            return [value]
        case Mapping():
            return [text for each in value.values() for text in _texts(each)]
        case Sequence():
            return [text for each in value for text in _texts(each)]
    return []


async def order(tx: Transaction, queue: WorkQueue, tenant: Tenant, task: Task, encoder: str) -> WorkItem | None:
    """Have a task embedded, in the transaction that writes its text, which a full queue (None) does not hinder."""
    work = NewWork(
        organization_id=tenant.organization_id,
        user_id=task.user_id,
        kind=KIND,
        subject_id=task.uid,
        payload={"task_id": task.task_id},
        priority=Priority.LOW,
        item_id=_item_id(task, encoder),
        on_conflict=OnConflict.USE_EXISTING,
    )
    try:
        return await queue.submit(tx, work)
    except ResourceExhausted as error:
        if error.reason is not Reason.QUEUE_FULL:
            raise
        return None  # `embed_rest` finds it later


async def forget(tx: Transaction, tenant: Tenant, task: Task, encoder: str) -> None:
    """A text that could not be embedded is not the task's any more: nobody will look at what became of that."""
    await work_store.delete_dead(tx, tenant.organization_id, _item_id(task, encoder))


def _item_id(task: Task, encoder: str) -> UUID:
    return uuid5(task.uid, f"{task.text_etag} {encoder}")


class TaskEmbedding:
    """The handler of work items of kind `task_embed`."""

    def __init__(self, services: TaskServices) -> None:
        self._services = services

    async def __call__(self, run: Run) -> Outcome:
        """Embed what the task says now."""
        organization_id, task_id = run.item.organization_id, run.item.payload["task_id"]
        embedder = self._services.embedder
        try:
            async with self._services.database.system(autocommit=True) as tx:
                task = await store.get(tx, organization_id, task_id)
        except NotFound:
            return Succeeded()  # it was deleted
        try:
            (found,) = await embed_each(embedder, [text_of(task)])
        except (ResourceExhausted, Unavailable) as error:
            return Released(datetime.now(UTC) + error.retry_after)
        async with self._services.database.system() as tx:
            if isinstance(found, TextRefused):  # nobody tries it again before its text or the encoder changes
                key = Key(organization_id, task_id)
                await self._services.refusals.note(tx, key, task.text_etag, embedder.name, found)
                return Succeeded()
            kept = await search_store.set_vector(tx, organization_id, task, embedder.name, found)
            tell(tx, self._services.changed)
        # Changed, or deleted, meanwhile: look again.
        return Succeeded() if kept else Released()


async def embed_now(services: TaskServices, caller: Caller, task_id: str) -> str:
    """Embed one of the caller's tasks; the encoder's name. Raises NotFound, Aborted when it changed meanwhile."""
    tenant, embedder = caller.tenant, services.embedder
    async with services.database.tenant(tenant, read=True) as tx:
        task = await store.get(tx, tenant.organization_id, task_id)
    if owner_scope(caller) not in (None, task.user_id):
        raise NotFound("Task", task_name(task_id))
    (vector,) = await embedder.embed([text_of(task)])
    async with services.database.system() as tx:
        if not await search_store.set_vector(tx, tenant.organization_id, task, embedder.name, vector):
            raise Aborted(Reason.CONCURRENT_CHANGE, f"{task_name(task_id)} changed meanwhile: try again")
        tell(tx, services.changed)
    return embedder.name


async def embed_rest(services: TaskServices, at_once: int = 500, *, others: bool = True) -> None:
    """Have tasks embedded, of all organizations, that lack a vector of their text as it is.

    They were written when the queue was full, or could not be embedded then; with `others`, also those whose vector is
    of another encoder than this server's.
    """
    encoder = services.embedder.name
    async with services.database.system(autocommit=True) as tx:
        lacking = await search_store.lacking_vectors(tx, encoder, at_once, others=others)
    for organization_id, task_id in lacking:
        await _embed(services, organization_id, task_id, encoder)


async def _embed(services: TaskServices, organization_id: UUID, task_id: str, encoder: str) -> Any:
    async with services.database.system() as tx:
        try:
            task = await store.get(tx, organization_id, task_id)
        except NotFound:
            return
        item = await order(tx, services.queue, Tenant(organization_id, task.user_id), task, encoder)
        if item is not None and item.state is State.DEAD:
            await services.queue.retry_many(tx, organization_id, [item.item_id])
