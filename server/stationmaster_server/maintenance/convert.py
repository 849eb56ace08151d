"""Background services: model to protobuf, and settings from it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from stationmaster.v1 import maintenance_pb2 as pb

from stationmaster_server.maintenance.model import (
    Figures,
    OnServer,
    Operation,
    OperationHelp,
    Server,
    ServiceView,
    SystemStatus,
    TargetProgress,
    service_name,
)
from stationmaster_server.maintenance.service import etag_of
from stationmaster_server.wire.fields import duration, field_of, is_set, mapping, span, struct, timestamp

SERVICE_NAME = "backgroundServices/{background_service}"
OPERATION_NAME = "operations/{operation}"
_THRESHOLDS = ("alert_errors_per_hour", "alert_run_time", "alert_memory_growth_bytes", "alert_handle_growth")
UPDATABLE = frozenset({"enabled", "interval", "max_failures", "retry_delay", "settings", *_THRESHOLDS})


def changes_from_proto(service: pb.BackgroundService, paths: set[str]) -> dict[str, Any]:
    """The settings that an update changes; None: by default again. Durations of zero mean that as well."""
    changes: dict[str, Any] = {}
    for path in paths:
        match path:
            case "interval" | "retry_delay" | "alert_run_time":
                changes[path] = span(service, path) or None
            case "settings":
                changes["own"] = mapping(service.settings, "background_service.settings")
            case "enabled":
                changes[path] = service.enabled
            case _:
                changes[path] = field_of(service, path) if is_set(service, path) else None
    return changes


def service_to_proto(view: ServiceView) -> pb.BackgroundService:
    """A service as its message."""
    return pb.BackgroundService(
        name=service_name(view.service_id),
        description=view.description,
        scope=pb.BackgroundServiceScope.Value(f"BACKGROUND_SERVICE_SCOPE_{view.scope}"),
        state=_state(view.state),
        enabled=view.settings.enabled,
        interval=duration(view.policy.interval),
        max_failures=view.policy.max_failures,
        retry_delay=duration(view.policy.retry_delay),
        alert_errors_per_hour=view.policy.alert_errors_per_hour,
        alert_run_time=duration(view.policy.alert_run_time),
        alert_memory_growth_bytes=view.policy.alert_memory_growth_bytes,
        alert_handle_growth=view.policy.alert_handle_growth,
        settings=struct(view.own_settings),
        settings_help=view.settings_help,
        pause_reason=view.settings.pause_reason,
        metrics=_metrics(view.totals, view.errors_last_hour),
        servers=[_on_server(one) for one in view.servers],
        operations=[_help(one) for one in view.operations],
        update_time=timestamp(view.settings.updated_at),
        etag=etag_of(view.settings),
        targets=[_target(one) for one in view.targets],
    )


def _state(state: str) -> pb.BackgroundServiceState.ValueType:
    return pb.BackgroundServiceState.Value(f"BACKGROUND_SERVICE_STATE_{state}")


def _metrics(figures: Figures, errors: int) -> pb.BackgroundServiceMetrics:
    runs = figures.completed + figures.failed
    return pb.BackgroundServiceMetrics(
        completed=figures.completed,
        failed=figures.failed,
        retried=figures.retried,
        restarted=figures.restarted,
        average_time=duration(timedelta(seconds=figures.busy_seconds / runs) if runs else None),
        last_run_time=timestamp(figures.last_run_at),
        last_success_time=timestamp(figures.last_success_at),
        last_error=figures.last_error,
        last_error_time=timestamp(figures.last_error_at),
        errors_last_hour=errors,
    )


def _on_server(one: OnServer) -> pb.BackgroundServiceOnServer:
    figures = one.figures
    return pb.BackgroundServiceOnServer(
        server=one.server,
        state=_state(figures.state),
        failures_in_a_row=figures.failures_in_a_row,
        last_run_time=timestamp(figures.last_run_at),
        recent_time=duration(timedelta(seconds=figures.recent_seconds)),
        memory_growth_bytes=figures.memory_growth_bytes,
        handle_growth=figures.handle_growth,
    )


def _target(one: TargetProgress) -> pb.BackgroundServiceTarget:
    return pb.BackgroundServiceTarget(
        place=one.place,
        cursor=one.cursor,
        waiting=one.waiting,
        lag=duration(one.lag),
        skipped=one.skipped,
        seen_time=timestamp(one.seen_at),
    )


def _help(one: OperationHelp) -> pb.BackgroundServiceOperation:
    return pb.BackgroundServiceOperation(
        operation=one.name,
        description=one.description,
        for_operators=one.for_operators,
        arguments_help=one.arguments,
    )


def operation_to_proto(operation: Operation) -> pb.Operation:
    """An operation as its message."""
    return pb.Operation(
        name=f"operations/{operation.operation_id}",
        service=service_name(operation.service_id),
        operation=operation.operation,
        arguments=struct(operation.arguments),
        state=pb.OperationState.Value(f"OPERATION_STATE_{operation.state}"),
        result=None if operation.result is None else struct(operation.result),
        error=operation.error,
        attempts=operation.attempts,
        owner=f"users/{operation.user_id}",
        create_time=timestamp(operation.created_at),
        start_time=timestamp(operation.started_at),
        finish_time=timestamp(operation.finished_at),
    )


def status_to_proto(status: SystemStatus) -> pb.SystemStatus:
    """How the installation is, as its message."""
    return pb.SystemStatus(
        servers=[_server(one) for one in status.servers],
        sessions=status.sessions,
        work=status.work,
        oldest_due=duration(status.oldest_due),
        database_bytes=status.database_bytes,
        database_connections=status.database_connections,
        background_services=status.services,
        alerts=[pb.Alert(subject=alert.subject, text=alert.text) for alert in status.alerts],
        read_time=timestamp(status.read_at),
    )


def _server(one: Server) -> pb.ServerStatus:
    return pb.ServerStatus(
        server=one.server,
        version=one.version,
        start_time=timestamp(one.started_at),
        seen_time=timestamp(one.seen_at),
        resources=one.resources,
        encoder=one.encoder,
    )
