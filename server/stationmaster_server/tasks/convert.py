"""Tasks: protobuf to model and back."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from stationmaster.v1 import task_pb2 as pb

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks.convert_options import options_from_proto, options_to_proto
from stationmaster_server.tasks.kinds.registry import MAX_PAYLOAD_BYTES
from stationmaster_server.tasks.model import (
    Dependency,
    DependencyMode,
    DependencyState,
    FailurePolicy,
    Schedule,
    Task,
    TaskState,
    execution_name,
    task_name,
)
from stationmaster_server.tasks.schedule_model import Overlap
from stationmaster_server.tasks.search_model import Hit, Passage, Target
from stationmaster_server.wire.fields import duration, mapping, moment, span, struct, timestamp
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.variables import variable_from_proto, variable_to_proto

TASK = "tasks/{task}"
NOBODY = UUID(int=0)
"""Stands for what the service sets."""

_STATES = {state: pb.TaskState.Value(f"TASK_STATE_{state}") for state in TaskState}
_OVERLAPS = {overlap: pb.OverlapPolicy.Value(f"OVERLAP_POLICY_{overlap}") for overlap in Overlap}
_OVERLAP_OF = {number: overlap for overlap, number in _OVERLAPS.items()}
_MODES = {mode: pb.DependencyMode.Value(f"DEPENDENCY_MODE_{mode}") for mode in DependencyMode}
_MODE_OF = {number: mode for mode, number in _MODES.items()}
_POLICIES = {each: pb.DependencyFailurePolicy.Value(f"DEPENDENCY_FAILURE_POLICY_{each}") for each in FailurePolicy}
_POLICY_OF = {number: policy for policy, number in _POLICIES.items()}
_DEPENDENCY_STATES = {state: pb.DependencyState.Value(f"DEPENDENCY_STATE_{state}") for state in DependencyState}
_TARGET_OF = {pb.SearchTarget.Value(f"SEARCH_TARGET_{target}"): target for target in Target}
_DEFAULT_SCHEDULE = Schedule()
_PLAIN = ("display_name", "description")


def task_id_of(name: str, field: str = "name") -> str:
    """The id in a task's name. Raises InvalidArgument(INVALID_NAME)."""
    return parse(TASK, name, str, field=field)


def new_task(task_id: str, message: pb.Task) -> Task:
    """What is to be created; the service sets whose it is."""
    fields = {name for name in ("display_name", "description", "labels", "variables") if getattr(message, name)}
    fields |= {name for name in ("payload", "schedule", "options") if message.HasField(name)}
    if message.dependency_mode:
        fields.add("dependency_mode")
    return replace(Task(task_id, message.kind, NOBODY, NOBODY), **task_changes(message, fields))


def task_changes(message: pb.Task, fields: Set[str]) -> dict[str, Any]:
    """The new values of these fields, by their names in `Task`."""
    changes: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN if name in fields}
    if "labels" in fields:
        changes["labels"] = dict(message.labels)
    if "payload" in fields:
        check_size(message.payload.ByteSize(), "task.payload")
        changes["payload"] = mapping(message.payload, "task.payload")
    if "variables" in fields:
        changes["variables"] = tuple(variable_from_proto(one, "task.variables") for one in message.variables)
    if "schedule" in fields:
        changes["schedule"] = schedule_from_proto(message.schedule) if message.HasField("schedule") else None
    if "options" in fields:
        changes["options"] = options_from_proto(message.options, "task.options")
    if "dependency_mode" in fields:
        changes["dependency_mode"] = _MODE_OF.get(message.dependency_mode, DependencyMode.START)
    return changes


def check_size(size: int, field: str) -> None:
    """A payload that is too large would be one for every execution."""
    if size > MAX_PAYLOAD_BYTES:
        raise InvalidArgument.field(field, f"has {size} bytes; {MAX_PAYLOAD_BYTES} are allowed")


def schedule_from_proto(message: pb.Schedule) -> Schedule:
    """A schedule; what is absent is as the default has it."""
    catch_up, jitter = span(message, "catch_up"), span(message, "jitter")
    return Schedule(
        cron=message.cron,
        every=span(message, "every"),
        time_zone=message.time_zone or "UTC",
        overlap=_OVERLAP_OF.get(message.overlap, Overlap.SKIP),
        catch_up=_DEFAULT_SCHEDULE.catch_up if catch_up is None else catch_up,
        jitter=timedelta(0) if jitter is None else jitter,
        pause_on_failure=message.pause_on_failure,
        start=moment(message, "start_time"),
        end=moment(message, "end_time"),
    )


def _schedule_to_proto(schedule: Schedule) -> pb.Schedule:
    return pb.Schedule(
        cron=schedule.cron,
        every=duration(schedule.every),
        time_zone=schedule.time_zone,
        overlap=_OVERLAPS[schedule.overlap],
        catch_up=duration(schedule.catch_up),
        jitter=duration(schedule.jitter),
        pause_on_failure=schedule.pause_on_failure,
        start_time=timestamp(schedule.start),
        end_time=timestamp(schedule.end),
    )


def task_to_proto(task: Task) -> pb.Task:
    """A task as its message."""
    return pb.Task(
        name=task_name(task.task_id),
        uid=str(task.uid),
        user=f"users/{task.user_id}",
        display_name=task.display_name,
        description=task.description,
        kind=task.kind,
        payload=struct(task.payload),
        variables=[variable_to_proto(variable) for variable in task.variables],
        schedule=_schedule_to_proto(task.schedule) if task.schedule else None,
        options=options_to_proto(task.options),
        dependency_mode=_MODES[task.dependency_mode],
        labels=task.labels,
        state=_STATES[task.state],
        state_reason=task.state_reason,
        next_fire_time=timestamp(task.next_fire_at if task.state is TaskState.ACTIVE else None),
        last_fire_time=timestamp(task.last_fire_at),
        fire_count=task.fired,
        skip_counts=task.skipped,
        last_execution=execution_name(task.last_execution_id) if task.last_execution_id else "",
        etag=task.etag,
        create_time=timestamp(task.created_at),
        update_time=timestamp(task.updated_at),
    )


def failure_policy_of(number: pb.DependencyFailurePolicy.ValueType) -> FailurePolicy:
    """What becomes of an execution when a task that it depends on fails."""
    return _POLICY_OF.get(number, FailurePolicy.BLOCK)


def dependency_to_proto(dependency: Dependency) -> pb.TaskDependency:
    """A dependency as its message."""
    return pb.TaskDependency(
        task=task_name(dependency.task_id),
        depends_on=task_name(dependency.depends_on),
        on_failure=_POLICIES[dependency.on_failure],
        depth=dependency.depth,
        state=_DEPENDENCY_STATES[dependency.state],
        create_time=timestamp(dependency.created_at),
    )


def targets_of(numbers: Iterable[pb.SearchTarget.ValueType]) -> set[Target]:
    """What to search through; tasks unless it is said."""
    return {_TARGET_OF[number] for number in numbers if number in _TARGET_OF} or {Target.TASKS}


def hit_to_proto(hit: Hit) -> pb.SearchTasksResponse.Hit:
    """A task or passage that matches, as its message."""
    message = pb.SearchTasksResponse.Hit(score=hit.score, snippet=hit.snippet)
    if isinstance(hit.found, Task):
        message.task.CopyFrom(task_to_proto(hit.found))
    else:
        message.passage.CopyFrom(_passage(hit.found))
    return message


def _passage(passage: Passage) -> pb.Passage:
    return pb.Passage(
        document=f"documents/{passage.document_id}",
        number=passage.number,
        user=f"users/{passage.user_id}",
        source=passage.source,
        title=passage.title,
        headings=passage.headings,
        text=passage.text,
        start_offset=passage.start,
        execution=execution_name(passage.execution_id),
        create_time=timestamp(passage.created_at),
    )
