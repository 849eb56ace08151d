"""W1 to W3: the work engine, in process and by RPC, beside others; all on a PostgreSQL with fsync."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, ClassVar

from stationmaster.v1 import task_pb2
from stationmaster_server.db.migrate import migrate

from benchmarks.goals import OURS, Figures, Goal, beside
from benchmarks.load.tasks import SERVICE, execution
from benchmarks.measure import Measure, Side

_JOBS = 5000
_CALLERS = 16
_GAP = 0.005


class Work(Measure):
    """A measure whose sides are the same jobs in several queues, each in a database of its own."""

    async def prepare(self) -> None:
        """A migrated database for ours; the others make their tables."""
        postgres = await self.bench.postgres()
        self._url = await postgres.database("work")
        self._floor_url = await postgres.database("work_floor")
        await migrate(self._url)

    @property
    def count(self) -> int:
        """Jobs of a run."""
        return self.bench.plan.count(_JOBS, least=500)

    async def floor(self, scenario: str, **parameters: Any) -> Figures:
        """A table and SKIP LOCKED."""
        return await (await self.bench.load()).run(f"floor_{scenario}", url=self._floor_url, **parameters)

    async def ours(self, scenario: str, **parameters: Any) -> Figures:
        """The engine."""
        return await (await self.bench.load()).run(f"work_{scenario}", url=self._url, **parameters)

    async def peer(self, name: str, scenario: str, **parameters: Any) -> Figures:
        """A peer's process, on a database of the same PostgreSQL."""
        program = await self.bench.job_peer(name)
        url = await (await self.bench.postgres()).database(name)
        return await program.run(scenario, url=url, **parameters)

    def all_sides(self, scenario: str, **parameters: Any) -> Mapping[str, Side]:
        """The floor, ours, pgqueuer, procrastinate."""
        return {
            "floor": lambda: self.floor(scenario, **parameters),
            OURS: lambda: self.ours(scenario, **parameters),
            "pgqueuer": lambda: self.peer("pgqueuer", scenario, **parameters),
            "procrastinate": lambda: self.peer("procrastinate", scenario, **parameters),
        }


class Drain(Work):
    """A backlog of jobs that do nothing, to the commit of the last one's end; one worker process each."""

    id = "W1"
    title = "no-op jobs through the whole engine, drained and committed"
    goals: ClassVar = (
        Goal("W1.pgqueuer", "rate", "pgqueuer", ">=", 1.0, "jobs/s"),
        Goal("W1.procrastinate", "rate", "procrastinate", ">=", 15, "jobs/s"),
        Goal("W1.floor", "rate", "floor", ">=", 0.30, "jobs/s"),
    )

    def sides(self) -> Mapping[str, Side]:
        """All."""
        return self.all_sides("drain", count=self.count)


class SubmitExecution(Work):
    """Over the network with a request id, authenticated, validated and audited; the peer enqueues in process."""

    id = "W2"
    title = "SubmitExecution by RPC, 16 callers"
    goals: ClassVar = (
        Goal("W2.pgqueuer", "rate", "pgqueuer", ">=", 1.0, "jobs/s"),
        beside("W2.procrastinate", "rate", "procrastinate", "jobs/s"),
    )

    def sides(self) -> Mapping[str, Side]:
        """Ours, pgqueuer, procrastinate."""
        sides = self.all_sides("one_by_one", callers=_CALLERS, count=self.count)
        return {OURS: self.by_rpc, "pgqueuer": sides["pgqueuer"], "procrastinate": sides["procrastinate"]}

    async def by_rpc(self) -> Figures:
        """The call."""
        server, load = await self.bench.server(), await self.bench.load()
        request = task_pb2.SubmitExecutionRequest(execution=execution())
        return await load.run(
            "unary",
            target=server.target,
            metadata=server.metadata,
            method=f"{SERVICE}/SubmitExecution",
            requests=[b64encode(request.SerializeToString()).decode()],
            request_id_field=request.DESCRIPTOR.fields_by_name["request_id"].number,
            callers=_CALLERS,
            seconds=self.bench.plan.seconds,
        )


class BatchSubmitExecutions(Work):
    """All in one call, all or none; the floor is one INSERT from an array."""

    id = "W2B"
    title = "BatchSubmitExecutions by RPC, rows of one call"
    goals: ClassVar = (
        Goal("W2B.floor", "rate", "floor", ">=", 0.5, "jobs/s"),
        beside("W2B.pgqueuer", "rate", "pgqueuer", "jobs/s"),
        beside("W2B.procrastinate", "rate", "procrastinate", "jobs/s"),
    )

    def sides(self) -> Mapping[str, Side]:
        """The floor, ours, pgqueuer, procrastinate."""
        return {**self.all_sides("bulk", count=self.count), OURS: self.by_rpc}

    async def by_rpc(self) -> Figures:
        """The call."""
        server, load = await self.bench.server(), await self.bench.load()
        return await load.run(
            "batch_submit", target=server.target, metadata=server.metadata, count=self.count, repeats=1
        )


class OneByOne(Work):
    """In process on each side: a call, a transaction, its commit."""

    id = "W2E"
    title = "jobs enqueued one by one in process, 16 callers"
    goals: ClassVar = (
        Goal("W2E.pgqueuer", "rate", "pgqueuer", ">=", 1.0, "jobs/s"),
        beside("W2E.procrastinate", "rate", "procrastinate", "jobs/s"),
        beside("W2E.floor", "rate", "floor", "jobs/s"),
    )

    def sides(self) -> Mapping[str, Side]:
        """All."""
        return self.all_sides("one_by_one", callers=_CALLERS, count=self.count)


class Bulk(Work):
    """In one call and one transaction."""

    id = "W2M"
    title = "jobs enqueued in one call in process"
    goals: ClassVar = (
        Goal("W2M.pgqueuer", "rate", "pgqueuer", ">=", 1.0, "jobs/s"),
        beside("W2M.procrastinate", "rate", "procrastinate", "jobs/s"),
        Goal("W2M.floor", "rate", "floor", ">=", 0.5, "jobs/s"),
    )

    def sides(self) -> Mapping[str, Side]:
        """All."""
        return self.all_sides("bulk", count=self.count)


class Started(Work):
    """One job at a time, with a pause between; the worker is in the process that submits."""

    id = "W3"
    title = "submitted to started, p50 at low load"
    goals: ClassVar = (
        Goal("W3.floor", "p50", "floor", "<=", 1.5, "ms"),
        Goal("W3.pgqueuer", "p50", "pgqueuer", "<=", 1.0, "ms"),
        Goal("W3.procrastinate", "p50", "procrastinate", "<=", 1.0, "ms"),
    )

    def sides(self) -> Mapping[str, Side]:
        """All."""
        return self.all_sides("low_load", count=self.bench.plan.count(300, least=50), gap=_GAP)
