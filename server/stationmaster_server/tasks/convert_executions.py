"""Executions: protobuf to model and back."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stationmaster.v1 import task_pb2 as pb

from stationmaster_server.tasks.convert import check_size
from stationmaster_server.tasks.convert_events import progress_to_proto
from stationmaster_server.tasks.convert_options import FORMATS, PRIORITIES, fields_set, options_from_proto
from stationmaster_server.tasks.executions import ExecuteRequest
from stationmaster_server.tasks.model import (
    Attempt,
    Execution,
    ExecutionState,
    KindStats,
    OnConflict,
    Options,
    Spec,
    Trigger,
    execution_name,
    task_name,
)
from stationmaster_server.wire.fields import mapping, moment, span, struct, timestamp
from stationmaster_server.wire.names import parse

EXECUTION = "executions/{execution}"
_DAY_SECONDS = 86_400.0

_STATES = {state: pb.ExecutionState.Value(f"EXECUTION_STATE_{state}") for state in ExecutionState}
_TRIGGERS = {trigger: pb.ExecutionTrigger.Value(f"EXECUTION_TRIGGER_{trigger}") for trigger in Trigger}
_CONFLICT_OF = {pb.IdConflictPolicy.Value(f"ID_CONFLICT_POLICY_{each}"): each for each in OnConflict}


def execution_id_of(name: str, field: str = "name") -> UUID:
    """The id in an execution's name. Raises InvalidArgument(INVALID_NAME)."""
    return parse(EXECUTION, name, field=field)


def on_conflict_of(number: pb.IdConflictPolicy.ValueType) -> OnConflict:
    """What happens when an id is taken."""
    return _CONFLICT_OF.get(number, OnConflict.FAIL)


def specs_from_proto(messages: Sequence[pb.ExecutionSpec]) -> list[Spec]:
    """What is to be run. Equal policies are one object, which lets them share a statement."""
    known: dict[bytes, Options] = {}
    return [_spec(one, f"executions[{place}]", known) for place, one in enumerate(messages)]


def spec_from_proto(message: pb.ExecutionSpec) -> Spec:
    """What is to be run. Raises InvalidArgument."""
    return _spec(message, "execution", {})


def _spec(message: pb.ExecutionSpec, field: str, known: dict[bytes, Options]) -> Spec:
    check_size(message.payload.ByteSize(), f"{field}.payload")
    written = message.options.SerializeToString(deterministic=True)
    if written not in known:
        known[written] = options_from_proto(message.options, f"{field}.options")
    ttl = span(message, "idempotency_ttl")
    return Spec(
        kind=message.kind,
        payload=mapping(message.payload, f"{field}.payload"),
        options=known[written],
        run_at=moment(message, "run_time"),
        idempotency_key=message.idempotency_key,
        idempotency_ttl_seconds=ttl.total_seconds() if ttl else _DAY_SECONDS,
        labels=dict(message.labels),
    )


def execute_from_proto(message: pb.ExecuteTaskRequest) -> ExecuteRequest:
    """What differs from the task's own."""
    check_size(message.variables.ByteSize(), "variables")
    ttl = span(message, "idempotency_ttl")
    return ExecuteRequest(
        variables=mapping(message.variables, "variables"),
        options=options_from_proto(message.options, "options"),
        set_options=fields_set(message.options),
        run_at=moment(message, "run_time"),
        idempotency_key=message.idempotency_key,
        idempotency_ttl_seconds=ttl.total_seconds() if ttl else _DAY_SECONDS,
        labels=dict(message.labels),
        ignore_dependencies=message.ignore_dependencies,
    )


def execution_to_proto(execution: Execution) -> pb.Execution:
    """An execution as its message."""
    return pb.Execution(
        name=execution_name(execution.id),
        task=task_name(execution.task_id) if execution.task_id else "",
        user=f"users/{execution.user_id}",
        kind=execution.kind,
        state=_STATES[execution.state],
        reason=execution.reason,
        message=execution.message,
        trigger=_TRIGGERS[execution.trigger],
        scheduled_time=timestamp(execution.scheduled_for),
        payload=struct(execution.payload) if execution.payload else None,
        variables=struct(execution.variables) if execution.variables else None,
        priority=PRIORITIES[execution.priority],
        attempt_count=execution.attempts,
        failed_attempts=[_attempt(attempt) for attempt in execution.failed_attempts],
        progress=progress_to_proto(execution.progress),
        result=struct(execution.result) if execution.result else None,
        session=f"sessions/{execution.session_id}" if execution.session_id else "",
        report_formats=[FORMATS[each] for each in execution.report_formats],
        reports=[f"reports/{report_id}" for report_id in execution.report_ids],
        cancel_requested=execution.cancel_requested,
        labels=execution.labels,
        run_time=timestamp(execution.run_at),
        create_time=timestamp(execution.created_at),
        start_time=timestamp(execution.started_at),
        end_time=timestamp(execution.finished_at),
        existing=execution.existing,
    )


def _attempt(attempt: Attempt) -> pb.ExecutionAttempt:
    return pb.ExecutionAttempt(
        attempt=attempt.number, error=attempt.error, reason=attempt.reason, end_time=timestamp(attempt.ended_at)
    )


def stats_to_proto(stats: KindStats) -> pb.GetQueueStatsResponse.KindStats:
    """How many executions of a kind stand how, as a message."""
    return pb.GetQueueStatsResponse.KindStats(
        kind=stats.kind,
        blocked_count=stats.blocked,
        queued_count=stats.queued,
        running_count=stats.running,
        failed_count=stats.failed,
        oldest_queued_time=timestamp(stats.oldest_queued_at),
        succeeded_last_hour_count=stats.succeeded_lately,
        failed_last_hour_count=stats.failed_lately,
        cancelled_last_hour_count=stats.cancelled_lately,
    )
