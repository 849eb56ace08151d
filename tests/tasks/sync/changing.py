"""Somebody who changes tasks and dependencies at random, by what the services themselves write with."""

from __future__ import annotations

import random
from dataclasses import replace
from uuid import uuid4

from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists, FailedPrecondition, NotFound
from stationmaster_server.tasks import dependency_store, level_store, levels, store
from stationmaster_server.tasks.model import FailurePolicy, Task, TaskState

WORDS = ["amber", "brook", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "juniper", "kelp", "larch"]


class Changer:
    """Changes the tasks `task-0` to `task-{count - 1}` of a tenant."""

    def __init__(self, database: Database, tenant: Tenant, count: int, seed: int) -> None:
        self._database = database
        self._tenant = tenant
        self._count = count
        self._chance = random.Random(seed)

    async def create(self, number: int) -> None:
        """One task."""
        async with self._database.system() as tx:
            await self._create(tx, f"task-{number}")

    async def change(self) -> None:
        """Anything, which is refused now and then."""
        act = self._chance.choice([self._create, self._say, self._say, self._pause, self._delete, *[self._edge] * 3])
        try:
            async with self._database.system() as tx:
                await act(tx, self._any())
                if self._chance.random() < 0.1:
                    raise NotFound("Task", "nobody")  # what is rolled back never was
        except (AlreadyExists, NotFound, FailedPrecondition):
            return

    def _any(self) -> str:
        return f"task-{self._chance.randrange(self._count)}"

    def _text(self) -> str:
        return " ".join(self._chance.choices(WORDS, k=5)) + self._chance.choice(["", ' "quoted" \\ \n line', " é<>&"])

    async def _create(self, tx: Transaction, task_id: str) -> None:
        uid, user_id, etag = uuid4(), self._tenant.user_id, uuid4().hex
        task = Task(task_id, "webhook", uid, user_id, display_name=self._text(), description=self._text(), etag=etag)
        await store.insert(tx, self._tenant.organization_id, task)

    async def _say(self, tx: Transaction, task_id: str) -> None:
        task = await store.lock(tx, self._tenant.organization_id, task_id)
        said = replace(task, display_name=self._text(), payload={"body": self._text()}, etag=uuid4().hex)
        await store.update(tx, self._tenant.organization_id, said, scheduled=False)

    async def _pause(self, tx: Transaction, task_id: str) -> None:
        task = await store.lock(tx, self._tenant.organization_id, task_id)
        wanted = TaskState.ACTIVE if task.state is TaskState.PAUSED else TaskState.PAUSED
        await store.set_state(tx, self._tenant.organization_id, task_id, wanted, "", uuid4().hex)

    async def _delete(self, tx: Transaction, task_id: str) -> None:
        organization_id = self._tenant.organization_id
        await dependency_store.lock_graph(tx, organization_id)
        for edge in await dependency_store.downstream(tx, organization_id, [task_id]):
            await dependency_store.delete(tx, organization_id, edge.task_id, task_id)
            await levels.settle(tx, organization_id, edge.task_id)
        await store.delete(tx, organization_id, task_id)
        await level_store.delete(tx, organization_id, task_id)

    async def _edge(self, tx: Transaction, task_id: str) -> None:
        """One more, or one less."""
        organization_id = self._tenant.organization_id
        await dependency_store.lock_graph(tx, organization_id)
        edges = await dependency_store.upstream(tx, organization_id, [task_id])
        if edges and self._chance.random() < 0.4:
            await dependency_store.delete(tx, organization_id, task_id, edges[0].depends_on)
            await levels.settle(tx, organization_id, task_id)
            return
        other = self._any()
        await store.owners(tx, organization_id, [task_id, other])
        await levels.admit(tx, organization_id, task_id, other)
        policy = self._chance.choice(list(FailurePolicy))
        await dependency_store.insert(tx, organization_id, task_id, other, policy)
