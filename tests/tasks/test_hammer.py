"""Everything that changes executions at once, from two servers, on a few of them: no deadlock, and nothing is torn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.db.engine import Database
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.sessions.workspaces import Workspaces
from stationmaster_server.tasks.cleanup.forgetting import Tools, forget_ended
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Payload
from stationmaster_server.tasks.workspaces import ExecutionWorkspaces

from tests.crash import ledger
from tests.fixtures.server import running, server_settings
from tests.waiting import until

EXECUTIONS = [UUID(int=number, version=4) for number in range(1, 7)]
TASKS = ["a", "b", "c", "d"]  # each may depend on those before it
REFUSED = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ALREADY_EXISTS}
QUICK = pb.ExecutionRetryPolicy(max_attempts=2, initial_delay=Duration(nanos=1_000_000))


class Fickle:
    """Says something, yields a few times, fails now and then."""

    name: ClassVar[str] = "fickle"
    payload: ClassVar[type[BaseModel]] = Payload

    async def run(self, job: Job[Payload]) -> Done:
        """Run."""
        job.log(f"attempt {job.attempt}")
        for _ in range(random.randrange(5)):
            await job.save({})
        if random.random() < 0.3:
            raise KindFailed("by chance", retryable=random.random() < 0.5)
        return Done()


class Hammer:
    """A client that does anything, by way of one server."""

    def __init__(self, stub: Any, seed: int) -> None:
        self._stub = stub
        self._chance = random.Random(seed)
        self._acts: list[Callable[[], Awaitable[Any]]] = [
            self._submit, self._submit, self._execute, self._execute, self._cancel, self._retry, self._retry_many,
            self._delete_task, self._create_task, self._create_task, self._depend, self._depend, self._let_go,
        ]  # fmt: skip

    async def strike(self, times: int) -> None:
        """Do something so often; what is refused for its state is fine."""
        for _ in range(times):
            try:
                await self._chance.choice(self._acts)()
            except grpc.aio.AioRpcError as error:
                if error.code() not in REFUSED and "is being dealt with" not in (error.details() or ""):
                    raise AssertionError(f"{error.code()}: {error.details()}") from error

    async def let_all_go(self) -> None:
        """Take away what executions wait for: it may never come."""
        for above, below in combinations(TASKS, 2):
            request = pb.RemoveDependencyRequest(task=f"tasks/{below}", depends_on=f"tasks/{above}")
            with suppress(grpc.aio.AioRpcError):
                await self._stub.RemoveDependency(request)

    def _one(self) -> str:
        return f"executions/{self._chance.choice(EXECUTIONS)}"

    def _task(self) -> str:
        return f"tasks/{self._chance.choice(TASKS)}"

    def _options(self) -> pb.ExecutionOptions:
        key = self._chance.choice(["", "one", "two"])
        strategy = self._chance.choice(pb.ConcurrencyStrategy.values()[1:])
        concurrency = pb.ExecutionConcurrency(key=key, max_running=1, strategy=strategy) if key else None
        return pb.ExecutionOptions(retry=QUICK, concurrency=concurrency)

    async def _submit(self) -> None:
        await self._stub.SubmitExecution(
            pb.SubmitExecutionRequest(
                execution=pb.ExecutionSpec(kind="fickle", options=self._options()),
                execution_id=str(self._chance.choice(EXECUTIONS)),
                on_conflict=self._chance.choice(pb.IdConflictPolicy.values()[1:]),
            )
        )

    async def _execute(self) -> None:
        await self._stub.ExecuteTask(pb.ExecuteTaskRequest(name=self._task(), request_id=str(uuid4())))

    async def _cancel(self) -> None:
        name = self._one()
        if self._chance.random() < 0.5:
            page = await self._stub.ListExecutions(pb.ListExecutionsRequest(page_size=5))
            name = self._chance.choice([one.name for one in page.executions] or [name])
        await self._stub.CancelExecution(pb.CancelExecutionRequest(name=name))

    async def _retry(self) -> None:
        await self._stub.RetryExecution(pb.RetryExecutionRequest(name=self._one()))

    async def _retry_many(self) -> None:
        await self._stub.RetryExecution(pb.RetryExecutionRequest(filter='kind = "fickle"'))

    async def _create_task(self) -> None:
        mode = self._chance.choice(pb.DependencyMode.values()[1:])
        task = pb.Task(kind="fickle", options=self._options(), dependency_mode=mode)
        await self._stub.CreateTask(pb.CreateTaskRequest(task_id=self._task().removeprefix("tasks/"), task=task))

    async def _delete_task(self) -> None:
        await self._stub.DeleteTask(pb.DeleteTaskRequest(name=self._task(), cancel_executions=True))

    def _edge(self) -> tuple[str, str]:
        above, below = sorted(self._chance.sample(TASKS, 2))
        return f"tasks/{below}", f"tasks/{above}"

    async def _depend(self) -> None:
        policy = self._chance.choice(pb.DependencyFailurePolicy.values()[1:])
        task, above = self._edge()
        await self._stub.AddDependency(pb.AddDependencyRequest(task=task, depends_on=above, on_failure=policy))

    async def _let_go(self) -> None:
        task, above = self._edge()
        await self._stub.RemoveDependency(pb.RemoveDependencyRequest(task=task, depends_on=above))


@pytest_asyncio.fixture
async def stubs(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Any]]:
    """TaskService of two servers on one database."""
    monkeypatch.setattr("stationmaster_server.app.tasks.installed", lambda _: [Fickle()])
    async with (
        running(server_settings(tmp_path / "one", database_url)) as one,
        running(server_settings(tmp_path / "two", database_url)) as two,
        one.channel() as here,
        two.channel(one.admin_key) as there,
    ):
        yield [TaskServiceStub(here), TaskServiceStub(there)]


@pytest_asyncio.fixture
async def tools(database: Database, tmp_path: Path) -> AsyncIterator[Tools]:
    """What executions are forgotten with."""
    pools = Pools(PoolSettings())
    yield Tools(database, AuditLog(database), pools, Workspaces(tmp_path), ExecutionWorkspaces(tmp_path / "executions"))
    await pools.close(timedelta(0))


async def forget_all_the_time(tools: Tools) -> None:
    """Forget what has ended, however young it is."""
    while True:
        await forget_ended(tools, timedelta(0))
        await asyncio.sleep(0.05)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seed", "times"), [(1, 40), *(pytest.param(seed, 200, marks=pytest.mark.long) for seed in (2, 3, 4))]
)
async def test_nothing_that_is_done_at_once_deadlocks_or_tears_a_stream(
    stubs: list[Any], tools: Tools, administrator_url: str, seed: int, times: int
) -> None:
    observer = await asyncpg.connect(administrator_url)
    clients = [Hammer(stub, 100 * seed + number) for stub in stubs for number in range(4)]
    forgetter = asyncio.create_task(forget_all_the_time(tools))
    await asyncio.gather(*(client.strike(times) for client in clients))
    forgetter.cancel()
    await asyncio.wait([forgetter])
    assert forgetter.cancelled(), forgetter.exception()
    assert await observer.fetchval("SELECT count(*) FROM audit_events WHERE action = 'execution.delete'") > 0

    await clients[0].let_all_go()

    async def done() -> bool:
        return await ledger.all_is_done(observer)

    try:
        await until(done, seconds=120)
        torn = await observer.fetch(_TORN)
        deadlocks = await observer.fetchval(_DEADLOCKS)
    finally:
        await observer.close()
    assert torn == []
    assert deadlocks == 0


_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
# Sequences without a hole, of which the last is the state that the execution ended in.
_TORN = """
SELECT s.stream_id, s.last_sequence, e.sequences, e.last, i.state
FROM executions x JOIN work_items i ON i.item_id = x.id JOIN streams s ON s.stream_id = x.id
CROSS JOIN LATERAL (
    SELECT array_agg(e.sequence ORDER BY e.sequence) AS sequences,
           (array_agg(e.body ->> 'state' ORDER BY e.sequence DESC))[1] AS last
    FROM events e WHERE e.stream_id = s.stream_id
) e
WHERE e.sequences <> ARRAY(SELECT * FROM generate_series(1, s.last_sequence))
   OR e.last IS DISTINCT FROM CASE i.state WHEN 'DEAD' THEN 'FAILED' ELSE i.state END
"""
