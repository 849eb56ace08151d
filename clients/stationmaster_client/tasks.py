"""Tasks: what is defined once and executed often, their schedules and dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Unpack

from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import search_pb2, task_pb2, task_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Pattern, Query
from stationmaster_client.times import to_duration, to_timestamp
from stationmaster_client.values import to_struct

BLOCK = task_pb2.DEPENDENCY_FAILURE_POLICY_BLOCK


class Tasks:
    """`tasks/…`. Every method takes the name or the bare id."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = task_pb2_grpc.TaskServiceStub(calls.channel)

    async def create(
        self, task_id: str, task: task_pb2.Task, *, validate_only: bool = False, request_id: str = ""
    ) -> task_pb2.Task:
        """Create a task under an id of your choice (`^[a-z][a-z0-9-]{0,62}$`). Everything in it is checked."""
        request = task_pb2.CreateTaskRequest(
            task_id=task_id, task=task, validate_only=validate_only, request_id=request_id
        )
        return await self._calls.unary(self._stub.CreateTask, request)

    async def get(self, name: str) -> task_pb2.Task:
        """Return one task."""
        return await self._calls.unary(self._stub.GetTask, task_pb2.GetTaskRequest(name=full("tasks", name)))

    def list(self, **query: Unpack[Query]) -> Listing[task_pb2.Task, task_pb2.ListTasksResponse]:
        """List the organization's tasks: `async for task in tasks.list(filter='kind = "crawl"')`."""

        async def fetch(token: str) -> task_pb2.ListTasksResponse:
            return await self._calls.unary(self._stub.ListTasks, task_pb2.ListTasksRequest(page_token=token, **query))

        return Listing(fetch, lambda page: page.tasks)

    async def update(
        self, task: task_pb2.Task, paths: Iterable[str] = (), *, validate_only: bool = False, request_id: str = ""
    ) -> task_pb2.Task:
        """Change the fields named by `paths`, or all that are set. With its `etag` a stale task is refused."""
        mask = FieldMask(paths=paths)
        request = task_pb2.UpdateTaskRequest(
            task=task, update_mask=mask if mask.paths else None, validate_only=validate_only, request_id=request_id
        )
        return await self._calls.unary(self._stub.UpdateTask, request)

    async def delete(self, name: str, *, etag: str = "", cancel_executions: bool = False, request_id: str = "") -> None:
        """Delete a task with its dependencies. Its executions stay and, unless they are cancelled, go on."""
        request = task_pb2.DeleteTaskRequest(
            name=full("tasks", name), etag=etag, cancel_executions=cancel_executions, request_id=request_id
        )
        await self._calls.unary(self._stub.DeleteTask, request)

    async def pause(self, name: str, reason: str = "", *, request_id: str = "") -> task_pb2.Task:
        """Pause a task: neither its schedule nor its dependencies start it."""
        request = task_pb2.PauseTaskRequest(name=full("tasks", name), reason=reason, request_id=request_id)
        return await self._calls.unary(self._stub.PauseTask, request)

    async def resume(self, name: str, *, request_id: str = "") -> task_pb2.Task:
        """Resume a paused task. What was due meanwhile is counted as skipped."""
        request = task_pb2.ResumeTaskRequest(name=full("tasks", name), request_id=request_id)
        return await self._calls.unary(self._stub.ResumeTask, request)

    def search(
        self,
        query: str,
        *,
        mode: search_pb2.SearchMode.ValueType = search_pb2.SEARCH_MODE_TEXT,
        targets: Iterable[task_pb2.SearchTarget.ValueType] = (),
        page_size: int = 0,
    ) -> Listing[task_pb2.SearchTasksResponse.Hit, task_pb2.SearchTasksResponse]:
        """Find tasks, or passages of documents (`targets`), by words or by meaning (`mode`), best match first."""
        wanted = list(targets)

        async def fetch(token: str) -> task_pb2.SearchTasksResponse:
            request = task_pb2.SearchTasksRequest(
                query=query, mode=mode, targets=wanted, page_size=page_size, page_token=token
            )
            return await self._calls.unary(self._stub.SearchTasks, request)

        return Listing(fetch, lambda page: page.hits)

    async def depend(
        self,
        task: str,
        on: str,
        *,
        on_failure: task_pb2.DependencyFailurePolicy.ValueType = BLOCK,
        validate_only: bool = False,
        request_id: str = "",
    ) -> task_pb2.TaskDependency:
        """Let `task` wait for the task `on`. Raises FailedPrecondition, with the whole cycle, if it closes one."""
        request = task_pb2.AddDependencyRequest(
            task=full("tasks", task),
            depends_on=full("tasks", on),
            on_failure=on_failure,
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.AddDependency, request)

    async def undepend(self, task: str, on: str, *, request_id: str = "") -> None:
        """Take a dependency away; executions that wait for it are looked at again."""
        request = task_pb2.RemoveDependencyRequest(
            task=full("tasks", task), depends_on=full("tasks", on), request_id=request_id
        )
        await self._calls.unary(self._stub.RemoveDependency, request)

    def dependencies(
        self, name: str, *, downstream: bool = False, max_depth: int = 1, **query: Unpack[Pattern]
    ) -> Listing[task_pb2.TaskDependency, task_pb2.ListDependenciesResponse]:
        """List what a task depends on, or with `downstream` what depends on it, up to so many steps away."""
        way = task_pb2.DEPENDENCY_DIRECTION_DOWNSTREAM if downstream else task_pb2.DEPENDENCY_DIRECTION_UPSTREAM

        async def fetch(token: str) -> task_pb2.ListDependenciesResponse:
            request = task_pb2.ListDependenciesRequest(
                parent=full("tasks", name), direction=way, max_depth=max_depth, page_token=token, **query
            )
            return await self._calls.unary(self._stub.ListDependencies, request)

        return Listing(fetch, lambda page: page.dependencies)

    async def check(self, name: str, candidate: str = "") -> task_pb2.CheckDependenciesResponse:
        """Tell whether a task could start now, and whether it could be made to depend on `candidate`."""
        request = task_pb2.CheckDependenciesRequest(
            name=full("tasks", name), candidate=full("tasks", candidate) if candidate else ""
        )
        return await self._calls.unary(self._stub.CheckDependencies, request)

    async def render(
        self, task: str | task_pb2.Task, variables: Mapping[str, Any] | None = None
    ) -> task_pb2.RenderTaskResponse:
        """Show what an execution of a task, stored or not, would be given."""
        request = task_pb2.RenderTaskRequest(variables=to_struct(variables))
        if isinstance(task, str):
            request.name = full("tasks", task)
        else:
            request.task.CopyFrom(task)
        return await self._calls.unary(self._stub.RenderTask, request)

    async def preview(
        self, schedule: str | task_pb2.Schedule, *, count: int = 10, after: datetime | None = None
    ) -> task_pb2.PreviewScheduleResponse:
        """Return the next times of a schedule, or of the schedule of a task that is named."""
        request = task_pb2.PreviewScheduleRequest(count=count, after_time=to_timestamp(after))
        if isinstance(schedule, str):
            request.name = full("tasks", schedule)
        else:
            request.schedule.CopyFrom(schedule)
        return await self._calls.unary(self._stub.PreviewSchedule, request)

    async def execute(
        self,
        name: str,
        variables: Mapping[str, Any] | None = None,
        *,
        options: task_pb2.ExecutionOptions | None = None,
        run_time: datetime | None = None,
        idempotency_key: str = "",
        idempotency_ttl: timedelta | None = None,
        labels: Mapping[str, str] | None = None,
        ignore_dependencies: bool = False,
        request_id: str = "",
    ) -> task_pb2.Execution:
        """Submit an execution. Fields of `options` that are set replace the task's; see `executions.wait`."""
        request = task_pb2.ExecuteTaskRequest(
            name=full("tasks", name),
            variables=to_struct(variables),
            options=options,
            run_time=to_timestamp(run_time),
            idempotency_key=idempotency_key,
            idempotency_ttl=to_duration(idempotency_ttl),
            labels=labels,
            ignore_dependencies=ignore_dependencies,
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.ExecuteTask, request)

    async def backfill(
        self,
        name: str,
        start: datetime,
        end: datetime,
        variables: Mapping[str, Any] | None = None,
        *,
        max_running: int = 1,
        validate_only: bool = False,
        request_id: str = "",
    ) -> task_pb2.BackfillTaskResponse:
        """Execute the times from `start` until before `end` that the schedule was due at and are not executed yet."""
        request = task_pb2.BackfillTaskRequest(
            name=full("tasks", name),
            start_time=to_timestamp(start),
            end_time=to_timestamp(end),
            variables=to_struct(variables),
            max_running=max_running,
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.BackfillTask, request)
