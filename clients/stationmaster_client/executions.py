"""Executions: runs of tasks and of work without a task; submitted, watched to their end, cancelled, retried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Unpack

from stationmaster.v1 import event_pb2, task_pb2, task_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query
from stationmaster_client.sources import ExecutionSource
from stationmaster_client.stream import EventStream, Interruption
from stationmaster_client.times import to_duration, to_timestamp
from stationmaster_client.values import to_struct

OnInterruption = Callable[[Interruption], None] | None
FAIL = task_pb2.ID_CONFLICT_POLICY_FAIL
ENDED = frozenset(
    {
        task_pb2.EXECUTION_STATE_SUCCEEDED,
        task_pb2.EXECUTION_STATE_FAILED,
        task_pb2.EXECUTION_STATE_CANCELLED,
    }
)
"""States that only a retry leads out of."""


class Executions:
    """`executions/…`. Every method takes the name or the bare id."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = task_pb2_grpc.TaskServiceStub(calls.channel)

    async def submit(
        self,
        kind: str,
        payload: Mapping[str, Any] | None = None,
        *,
        options: task_pb2.ExecutionOptions | None = None,
        run_time: datetime | None = None,
        idempotency_key: str = "",
        idempotency_ttl: timedelta | None = None,
        labels: Mapping[str, str] | None = None,
        execution_id: str = "",
        on_conflict: task_pb2.IdConflictPolicy.ValueType = FAIL,
        request_id: str = "",
    ) -> task_pb2.Execution:
        """Submit work without a task: `submit("prompt", {"model": "demo", "prompt": "what is 6*7"})`."""
        spec = task_pb2.ExecutionSpec(
            kind=kind,
            payload=to_struct(payload),
            options=options,
            run_time=to_timestamp(run_time),
            idempotency_key=idempotency_key,
            idempotency_ttl=to_duration(idempotency_ttl),
            labels=labels,
        )
        request = task_pb2.SubmitExecutionRequest(
            execution=spec, execution_id=execution_id, on_conflict=on_conflict, request_id=request_id
        )
        return await self._calls.unary(self._stub.SubmitExecution, request)

    async def submit_many(self, specs: Iterable[task_pb2.ExecutionSpec], *, request_id: str = "") -> Sequence[str]:
        """Submit up to 5,000 at once, all or none. The names, in the same order."""
        request = task_pb2.BatchSubmitExecutionsRequest(executions=specs, request_id=request_id)
        return (await self._calls.unary(self._stub.BatchSubmitExecutions, request)).names

    async def get(self, name: str) -> task_pb2.Execution:
        """Return one execution, with its result when it has one."""
        request = task_pb2.GetExecutionRequest(name=full("executions", name))
        return await self._calls.unary(self._stub.GetExecution, request)

    def list(self, **query: Unpack[Query]) -> Listing[task_pb2.Execution, task_pb2.ListExecutionsResponse]:
        """List executions, newest first: `executions.list(filter='task = "tasks/nightly" AND state = "FAILED"')`."""

        async def fetch(token: str) -> task_pb2.ListExecutionsResponse:
            request = task_pb2.ListExecutionsRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListExecutions, request)

        return Listing(fetch, lambda page: page.executions)

    def watch(
        self,
        name: str,
        after: int = 0,
        *,
        patience: timedelta | None = None,
        on_interruption: OnInterruption = None,
    ) -> EventStream[event_pb2.Event]:
        """Every event after a sequence, in order, each once, until the execution has ended.

        Goes on by itself over broken connections and restarts, for ever or as long as `patience` lasts. Raises DataLoss
        when sequences are missing.
        """
        source = ExecutionSource(
            full("executions", name), after, lambda request: self._calls.stream(self._stub.WatchExecution, request)
        )
        return EventStream(source, patience=patience, on_interruption=on_interruption)

    async def wait(
        self, name: str, *, patience: timedelta | None = None, on_interruption: OnInterruption = None
    ) -> task_pb2.Execution:
        """Return the execution once it has ended, however it did. Goes on over restarts as `watch` does."""
        after = 0
        while True:
            async with self.watch(name, after, patience=patience, on_interruption=on_interruption) as events:
                async for event in events:
                    after = event.sequence
            execution = await self.get(name)
            if execution.state in ENDED:  # else somebody has retried it just now
                return execution

    async def cancel(self, name: str, reason: str = "", *, request_id: str = "") -> task_pb2.Execution:
        """Cancel an execution: at once while it waits, soon while it runs. One that has ended stays as it is."""
        request = task_pb2.CancelExecutionRequest(name=full("executions", name), reason=reason, request_id=request_id)
        return await self._calls.unary(self._stub.CancelExecution, request)

    async def retry(self, name: str = "", *, filter: str = "", request_id: str = "") -> Sequence[str]:  # noqa: A002
        """Queue a failed execution again, or those of a filter, at most 1,000, the oldest first. The names of them."""
        request = task_pb2.RetryExecutionRequest(
            name=full("executions", name) if name else "", filter=filter, request_id=request_id
        )
        return (await self._calls.unary(self._stub.RetryExecution, request)).names

    async def stats(self) -> task_pb2.GetQueueStatsResponse:
        """Tell how much of the organization's work waits, runs and failed, by kind."""
        return await self._calls.unary(self._stub.GetQueueStats, task_pb2.GetQueueStatsRequest())
