"""How background services are shown."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

from stationmaster_client.cli.output import Output, age, moment, plain, size
from stationmaster_client.names import last
from stationmaster_client.structs import values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.duration_pb2 import Duration
    from rich.text import Text
    from stationmaster.v1 import maintenance_pb2

_WIDE = 110
_COLUMNS = ("SERVICE", "STATE", "EVERY", "LAST RUN", "TOOK#", "OK#", "FAILED#", "1H#")
_MORE = ("RETRIED#", "SERVERS#")
_SERVERS = ("SERVER", "STATE", "FAILURES#", "LAST RUN", "TAKES#", "LEFT BEHIND#", "FILES#")
_TARGETS = ("TARGET", "CURSOR", "WAITING#", "LAG#", "SKIPPED#", "SEEN")
_STYLES = {
    "idle": "green",
    "running": "cyan",
    "paused": "yellow",
    "disabled": "dim",
    "failing": "yellow",
    "unhealthy": "bold red",
}


def columns(width: int) -> tuple[str, ...]:
    """The heads of the table; where there is room, of more."""
    return _COLUMNS + (_MORE if width >= _WIDE else ())


def row(service: maintenance_pb2.BackgroundService, width: int) -> tuple[str | Text, ...]:
    """A line of the table. `1H` counts the errors of the last hour."""
    metrics = service.metrics
    cells = (
        last(service.name),
        state_of(service.state),
        span(service.interval),
        age(metrics.last_run_time),
        span(metrics.average_time),
        f"{metrics.completed:,}",
        f"{metrics.failed:,}" if metrics.failed else "",
        f"{metrics.errors_last_hour:,}" if metrics.errors_last_hour else "",
    )
    more = (f"{metrics.retried:,}" if metrics.retried else "", str(len(service.servers) or ""))
    return cells + (more if width >= _WIDE else ())


def state_of(state: maintenance_pb2.BackgroundServiceState.ValueType) -> Text:
    """`idle`, `unhealthy` and so on, in its colour."""
    from rich.text import Text
    from stationmaster.v1 import maintenance_pb2

    text = plain(maintenance_pb2.BackgroundServiceState.Name(state), "BACKGROUND_SERVICE_STATE")
    return Text(text, _STYLES.get(text, ""))


def span(duration: Duration) -> str:
    """`250 ms`, `1.5 s`, `10 min`, `6 h`; empty for none."""
    seconds = duration.ToTimedelta() / timedelta(seconds=1)
    if not seconds:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def describe_service(out: Output, service: maintenance_pb2.BackgroundService) -> None:
    """All of one service: as the message, or for people."""
    if out.as_json:
        out.json(service)
        return
    out.print(last(service.name), style="bold")
    out.print(service.description, style="dim")
    out.details(_facts(service))
    settings = values(service.settings)
    if settings:
        out.print()
        shown = ((name, json.dumps(value), service.settings_help.get(name, "")) for name, value in settings.items())
        out.table(("SETTING", "VALUE", "WHAT IT MEANS"), shown, empty="")
    out.print()
    offered = ((one.operation, one.description, ", ".join(sorted(one.arguments_help))) for one in service.operations)
    nothing = "It is an engine of the server: it goes on by itself, and is neither held nor set nor triggered."
    out.table(("OPERATION", "WHAT IT DOES", "ARGUMENTS"), offered, empty=nothing)
    if service.targets:
        out.print()
        out.table(_TARGETS, map(_target, service.targets), empty="")
    if service.servers:
        out.print()
        out.table(_SERVERS, map(_server, service.servers), empty="")


def _target(one: maintenance_pb2.BackgroundServiceTarget) -> tuple[str | Text, ...]:
    waiting = f"{one.waiting:,}" if one.waiting else ""
    skipped = f"{one.skipped:,}" if one.skipped else ""
    return one.place, one.cursor or "being filled", waiting, span(one.lag), skipped, age(one.seen_time)


def _server(one: maintenance_pb2.BackgroundServiceOnServer) -> tuple[str | Text, ...]:
    return (
        one.server,
        state_of(one.state),
        str(one.failures_in_a_row or ""),
        age(one.last_run_time),
        span(one.recent_time),
        size(one.memory_growth_bytes) if one.memory_growth_bytes else "",
        str(one.handle_growth or ""),
    )


def _facts(service: maintenance_pb2.BackgroundService) -> Iterator[tuple[str, str | Text]]:
    from stationmaster.v1 import maintenance_pb2

    metrics = service.metrics
    scope = maintenance_pb2.BackgroundServiceScope.Name(service.scope)
    yield "state", state_of(service.state)
    yield "why paused", service.pause_reason
    yield "runs on", plain(scope, "BACKGROUND_SERVICE_SCOPE")
    yield "every", span(service.interval)
    yield "last run", moment(metrics.last_run_time)
    yield "last success", moment(metrics.last_success_time)
    yield "done", f"{metrics.completed:,} runs, {span(metrics.average_time) or '0 ms'} each"
    yield "failed", f"{metrics.failed:,}, {metrics.errors_last_hour:,} within the last hour" if metrics.failed else ""
    yield "tried again", f"{metrics.retried:,}" if metrics.retried else ""
    yield "started anew", f"{metrics.restarted:,}" if metrics.restarted else ""
    yield "last error", f"{moment(metrics.last_error_time)} {metrics.last_error}" if metrics.last_error else ""
    yield (
        "unhealthy after",
        f"{service.max_failures} failures in a row, the first repeated after " + (span(service.retry_delay) or "0 ms"),
    )
    yield "alerts", ", ".join(_thresholds(service)) or "none but of its being unhealthy"
    yield "changed", moment(service.update_time)


def _thresholds(service: maintenance_pb2.BackgroundService) -> Iterator[str]:
    if service.alert_errors_per_hour:
        yield f"{service.alert_errors_per_hour} errors an hour"
    if service.alert_run_time.ByteSize():
        yield f"runs of {span(service.alert_run_time)}"
    if service.alert_memory_growth_bytes:
        yield f"{size(service.alert_memory_growth_bytes)} left behind"
    if service.alert_handle_growth:
        yield f"{service.alert_handle_growth} files left open"
