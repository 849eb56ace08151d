"""How executions are run: protobuf to model and back."""

from __future__ import annotations

from datetime import timedelta

from stationmaster.v1 import storage_pb2
from stationmaster.v1 import task_pb2 as pb

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks.model import (
    Concurrency,
    Options,
    Priority,
    RateLimit,
    ReportFormat,
    RetryPolicy,
    Strategy,
    Timeouts,
)
from stationmaster_server.wire.fields import duration, span

FORMATS = {each: storage_pb2.ReportFormat.Value(f"REPORT_FORMAT_{each}") for each in ReportFormat}
_FORMAT_OF = {number: each for each, number in FORMATS.items()}
PRIORITIES = {priority: pb.ExecutionPriority.Value(f"EXECUTION_PRIORITY_{priority.name}") for priority in Priority}
_PRIORITY_OF = {number: priority for priority, number in PRIORITIES.items()}
_STRATEGIES = {
    Strategy.GROUP_ROUND_ROBIN: pb.CONCURRENCY_STRATEGY_WAIT,
    Strategy.CANCEL_RUNNING: pb.CONCURRENCY_STRATEGY_CANCEL_RUNNING,
    Strategy.CANCEL_NEWEST: pb.CONCURRENCY_STRATEGY_CANCEL_NEWEST,
}
_STRATEGY_OF = {number: strategy for strategy, number in _STRATEGIES.items()}
_DEFAULT_RETRY = RetryPolicy()


def options_from_proto(message: pb.ExecutionOptions, field: str) -> Options:
    """Options; what is absent is as the default has it. Raises InvalidArgument."""
    return Options(
        priority=_PRIORITY_OF.get(message.priority),
        retry=_retry(message.retry, field) if message.HasField("retry") else RetryPolicy(),
        timeouts=_timeouts(message.timeouts),
        concurrency=_concurrency(message.concurrency) if message.HasField("concurrency") else None,
        rate=_rate(message.rate) if message.HasField("rate") else None,
        report_formats=tuple(_FORMAT_OF[number] for number in message.report_formats),
    )


def fields_set(message: pb.ExecutionOptions) -> frozenset[str]:
    """Which of the options a message has."""
    names = {name for name in ("retry", "timeouts", "concurrency", "rate") if message.HasField(name)}
    names |= {name for name in ("priority", "report_formats") if getattr(message, name)}
    return frozenset(names)


def _retry(message: pb.ExecutionRetryPolicy, field: str) -> RetryPolicy:
    initial, cap = span(message, "initial_delay"), span(message, "max_delay")
    if initial is not None and cap is not None and cap < initial:
        raise InvalidArgument.field(f"{field}.retry.max_delay", "must not be shorter than initial_delay")
    return RetryPolicy(
        attempts=message.max_attempts or _DEFAULT_RETRY.attempts,
        initial=_DEFAULT_RETRY.initial if initial is None else initial,
        factor=message.factor or _DEFAULT_RETRY.factor,
        cap=max(_DEFAULT_RETRY.cap, initial or timedelta(0)) if cap is None else cap,
        non_retryable=frozenset(message.non_retryable_reasons),
    )


def _timeouts(message: pb.ExecutionTimeouts) -> Timeouts:
    return Timeouts(
        schedule_to_start=span(message, "schedule_to_start"),
        start_to_close=span(message, "start_to_close"),
        schedule_to_close=span(message, "schedule_to_close"),
        heartbeat=span(message, "heartbeat"),
    )


def _concurrency(message: pb.ExecutionConcurrency) -> Concurrency:
    return Concurrency(
        key=message.key,
        max_running=max(message.max_running, 1),
        strategy=_STRATEGY_OF.get(message.strategy, Strategy.GROUP_ROUND_ROBIN),
    )


def _rate(message: pb.ExecutionRate) -> RateLimit:
    return RateLimit(message.key, message.limit, span(message, "per") or timedelta(seconds=1))


def options_to_proto(options: Options) -> pb.ExecutionOptions:
    """Options as their message."""
    retry, timeouts, concurrency, rate = options.retry, options.timeouts, options.concurrency, options.rate
    message = pb.ExecutionOptions(
        priority=PRIORITIES[options.priority] if options.priority else pb.EXECUTION_PRIORITY_UNSPECIFIED,
        retry=pb.ExecutionRetryPolicy(
            max_attempts=retry.attempts,
            initial_delay=duration(retry.initial),
            factor=retry.factor,
            max_delay=duration(retry.cap),
            non_retryable_reasons=sorted(retry.non_retryable),
        ),
        timeouts=pb.ExecutionTimeouts(
            schedule_to_start=duration(timeouts.schedule_to_start),
            start_to_close=duration(timeouts.start_to_close),
            schedule_to_close=duration(timeouts.schedule_to_close),
            heartbeat=duration(timeouts.heartbeat),
        ),
        report_formats=[FORMATS[each] for each in options.report_formats],
    )
    if concurrency is not None:
        message.concurrency.CopyFrom(
            pb.ExecutionConcurrency(
                key=concurrency.key,
                max_running=concurrency.max_running,
                strategy=_STRATEGIES[concurrency.strategy],
            )
        )
    if rate is not None:
        message.rate.CopyFrom(pb.ExecutionRate(key=rate.key, limit=rate.limit, per=duration(rate.per)))
    return message
