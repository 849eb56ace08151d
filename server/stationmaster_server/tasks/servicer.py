"""TaskService: messages in, the services, messages out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.empty_pb2 import Empty
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceServicer

from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.sessions.convert_events import parts_of
from stationmaster_server.tasks import convert, convert_executions
from stationmaster_server.tasks.backfill import backfill
from stationmaster_server.tasks.convert_events import events_to_proto
from stationmaster_server.tasks.dependencies import Dependencies
from stationmaster_server.tasks.executions import Executions
from stationmaster_server.tasks.previews import Previews
from stationmaster_server.tasks.retrying import retry
from stationmaster_server.tasks.searching import Search
from stationmaster_server.tasks.service import UPDATABLE, Tasks
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.watching import Watching
from stationmaster_server.wire.caller import caller_of, current_caller
from stationmaster_server.wire.fields import mapping, masked, moment, struct, timestamp
from stationmaster_server.wire.paging import PageTokens
from stationmaster_server.wire.search import mode_of

Context = grpc.aio.ServicerContext[Any, Any]


class TaskServicer(TaskServiceServicer):
    """The methods of TaskService."""

    def __init__(self, services: TaskServices, tokens: PageTokens) -> None:
        self._services = services
        self._tasks = Tasks(services)
        self._dependencies = Dependencies(services)
        self._executions = Executions(services)
        self._previews = Previews(services)
        self._search = Search(services)
        self._watching = Watching(services.database, services.log)
        self._tokens = tokens

    async def CreateTask(self, request: pb.CreateTaskRequest, context: Context) -> pb.Task:
        """A new task."""
        new = convert.new_task(request.task_id, request.task)
        made = await self._tasks.create(caller_of(request), new, validate_only=request.validate_only)
        return convert.task_to_proto(made)

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.Task:
        """One task."""
        return convert.task_to_proto(await self._tasks.get(current_caller(), convert.task_id_of(request.name)))

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        """A page of tasks."""
        page = await self._tasks.list(current_caller(), request.filter, request.order_by, self._tokens.read(request))
        tasks, token = self._tokens.page(request, page, convert.task_to_proto)
        return pb.ListTasksResponse(tasks=tasks, next_page_token=token)

    async def UpdateTask(self, request: pb.UpdateTaskRequest, context: Context) -> pb.Task:
        """A task changed."""
        changed = await self._tasks.update(
            caller_of(request),
            convert.task_id_of(request.task.name, "task.name"),
            convert.task_changes(request.task, masked(request, UPDATABLE)),
            request.task.etag,
            validate_only=request.validate_only,
        )
        return convert.task_to_proto(changed)

    async def DeleteTask(self, request: pb.DeleteTaskRequest, context: Context) -> Empty:
        """A task deleted."""
        task_id = convert.task_id_of(request.name)
        await self._tasks.delete(caller_of(request), task_id, request.etag, cancel_executions=request.cancel_executions)
        return Empty()

    async def PauseTask(self, request: pb.PauseTaskRequest, context: Context) -> pb.Task:
        """A task paused."""
        task_id = convert.task_id_of(request.name)
        return convert.task_to_proto(await self._tasks.pause(caller_of(request), task_id, request.reason))

    async def ResumeTask(self, request: pb.ResumeTaskRequest, context: Context) -> pb.Task:
        """A task resumed."""
        return convert.task_to_proto(await self._tasks.resume(caller_of(request), convert.task_id_of(request.name)))

    async def SearchTasks(self, request: pb.SearchTasksRequest, context: Context) -> pb.SearchTasksResponse:
        """A page of tasks and passages that match."""
        mode, targets = mode_of(request.mode), convert.targets_of(request.targets)
        wanted = self._tokens.read(request)
        page = await self._search.search(current_caller(), request.query, mode, targets, wanted)
        hits, token = self._tokens.page(request, page, convert.hit_to_proto)
        return pb.SearchTasksResponse(hits=hits, next_page_token=token)

    async def AddDependency(self, request: pb.AddDependencyRequest, context: Context) -> pb.TaskDependency:
        """A new dependency."""
        added = await self._dependencies.add(
            caller_of(request),
            convert.task_id_of(request.task, "task"),
            convert.task_id_of(request.depends_on, "depends_on"),
            convert.failure_policy_of(request.on_failure),
            validate_only=request.validate_only,
        )
        return convert.dependency_to_proto(added)

    async def RemoveDependency(self, request: pb.RemoveDependencyRequest, context: Context) -> Empty:
        """A dependency taken away."""
        task_id = convert.task_id_of(request.task, "task")
        depends_on = convert.task_id_of(request.depends_on, "depends_on")
        await self._dependencies.remove(caller_of(request), task_id, depends_on)
        return Empty()

    async def ListDependencies(
        self, request: pb.ListDependenciesRequest, context: Context
    ) -> pb.ListDependenciesResponse:
        """A page of dependencies."""
        wanted = self._tokens.read(request)
        if request.order_by not in ("", "depth"):
            raise InvalidArgument.field("order_by", "expected `depth`", Reason.INVALID_ORDER_BY)
        page = await self._dependencies.list(
            current_caller(),
            convert.task_id_of(request.parent, "parent"),
            request.filter,
            up=request.direction != pb.DEPENDENCY_DIRECTION_DOWNSTREAM,
            max_depth=request.max_depth,
            page=wanted,
        )
        dependencies, token = self._tokens.page(request, page, convert.dependency_to_proto)
        return pb.ListDependenciesResponse(dependencies=dependencies, next_page_token=token)

    async def CheckDependencies(
        self, request: pb.CheckDependenciesRequest, context: Context
    ) -> pb.CheckDependenciesResponse:
        """Whether a task could start."""
        candidate = convert.task_id_of(request.candidate, "candidate") if request.candidate else ""
        checked = await self._dependencies.check(current_caller(), convert.task_id_of(request.name), candidate)
        return pb.CheckDependenciesResponse(
            ready=checked.ready,
            dependencies=[convert.dependency_to_proto(one) for one in checked.dependencies],
            cycle=[f"tasks/{task_id}" for task_id in checked.cycle],
        )

    async def RenderTask(self, request: pb.RenderTaskRequest, context: Context) -> pb.RenderTaskResponse:
        """What an execution would be given."""
        task = convert.new_task("preview", request.task) if request.HasField("task") else None
        payload, variables = await self._previews.render(
            current_caller(),
            _name_or(request.name, task is not None, "task"),
            task,
            mapping(request.variables, "variables"),
        )
        return pb.RenderTaskResponse(payload=struct(payload), variables=struct(variables))

    async def PreviewSchedule(self, request: pb.PreviewScheduleRequest, context: Context) -> pb.PreviewScheduleResponse:
        """The next times of a schedule."""
        schedule = convert.schedule_from_proto(request.schedule) if request.HasField("schedule") else None
        task_id = _name_or(request.name, schedule is not None, "schedule")
        after = moment(request, "after_time") or datetime.now(UTC)
        times, words = await self._previews.schedule(current_caller(), task_id, schedule, after, request.count or 10)
        stamps = [stamp for time in times if (stamp := timestamp(time)) is not None]
        return pb.PreviewScheduleResponse(times=stamps, description=words)

    async def ExecuteTask(self, request: pb.ExecuteTaskRequest, context: Context) -> pb.Execution:
        """A new execution of a task."""
        wanted = convert_executions.execute_from_proto(request)
        made = await self._executions.execute(caller_of(request), convert.task_id_of(request.name), wanted)
        return convert_executions.execution_to_proto(made)

    async def SubmitExecution(self, request: pb.SubmitExecutionRequest, context: Context) -> pb.Execution:
        """A new execution without a task."""
        made = await self._executions.submit(
            caller_of(request),
            convert_executions.spec_from_proto(request.execution),
            UUID(request.execution_id) if request.execution_id else None,
            convert_executions.on_conflict_of(request.on_conflict),
        )
        return convert_executions.execution_to_proto(made)

    async def BatchSubmitExecutions(
        self, request: pb.BatchSubmitExecutionsRequest, context: Context
    ) -> pb.BatchSubmitExecutionsResponse:
        """Many new executions without a task."""
        specs = convert_executions.specs_from_proto(request.executions)
        ids = await self._executions.submit_many(caller_of(request), specs)
        return pb.BatchSubmitExecutionsResponse(names=[f"executions/{one}" for one in ids])

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.Execution:
        """One execution."""
        execution_id = convert_executions.execution_id_of(request.name)
        return convert_executions.execution_to_proto(await self._executions.get(current_caller(), execution_id))

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """A page of executions."""
        page = await self._executions.list(
            current_caller(), request.filter, request.order_by, self._tokens.read(request)
        )
        executions, token = self._tokens.page(request, page, convert_executions.execution_to_proto)
        return pb.ListExecutionsResponse(executions=executions, next_page_token=token)

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncGenerator[pb.WatchExecutionResponse, None]:
        """Stream an execution's events."""
        execution_id = convert_executions.execution_id_of(request.name)
        batches = self._watching.watch(current_caller(), execution_id, request.after_sequence)
        async with aclosing(batches):
            async for batch in batches:
                for some, last in parts_of(events_to_proto(batch.events), batch.last_sequence):
                    yield pb.WatchExecutionResponse(events=some, last_sequence=last)

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> pb.Execution:
        """An execution cancelled."""
        execution_id = convert_executions.execution_id_of(request.name)
        cancelled = await self._executions.cancel(caller_of(request), execution_id, request.reason)
        return convert_executions.execution_to_proto(cancelled)

    async def RetryExecution(self, request: pb.RetryExecutionRequest, context: Context) -> pb.RetryExecutionResponse:
        """Failed executions queued again."""
        execution_id = convert_executions.execution_id_of(request.name) if request.name else None
        if execution_id and request.filter:
            raise InvalidArgument.field("filter", "give either name or filter")
        ids = await retry(self._services, caller_of(request), execution_id, request.filter)
        return pb.RetryExecutionResponse(names=[f"executions/{one}" for one in ids])

    async def BackfillTask(self, request: pb.BackfillTaskRequest, context: Context) -> pb.BackfillTaskResponse:
        """Executions for times of the past."""
        since, until = moment(request, "start_time"), moment(request, "end_time")
        if since is None or until is None:
            raise InvalidArgument.field("start_time", "start_time and end_time are required")
        done = await backfill(
            self._services,
            caller_of(request),
            convert.task_id_of(request.name),
            since,
            until,
            variables=mapping(request.variables, "variables"),
            max_running=request.max_running,
            validate_only=request.validate_only,
        )
        times = [stamp for time in done.times if (stamp := timestamp(time)) is not None]
        names = [f"executions/{one}" for one in done.ids]
        return pb.BackfillTaskResponse(names=names, times=times, skipped_count=done.skipped)

    async def GetQueueStats(self, request: pb.GetQueueStatsRequest, context: Context) -> pb.GetQueueStatsResponse:
        """How much waits, runs and failed."""
        stats = await self._executions.stats(current_caller())
        return pb.GetQueueStatsResponse(kinds=[convert_executions.stats_to_proto(one) for one in stats])


def _name_or(name: str, given: bool, other: str) -> str | None:
    """The id of the task, when it is that which is asked about. Raises InvalidArgument unless it is one of the two."""
    if bool(name) == given:
        raise InvalidArgument.field("name", f"give either name or {other}")
    return convert.task_id_of(name) if name else None
