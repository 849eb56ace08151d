"""How tasks are shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stationmaster_client.cli.output import Output, age, clean, moment, plain
from stationmaster_client.cli.progress import took
from stationmaster_client.cli.transcript import shorten
from stationmaster_client.names import last
from stationmaster_client.structs import values, whole

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.text import Text
    from stationmaster.v1 import task_pb2

_BEFORE_A_MATCH = 24
"""Characters of a line before what was searched for."""


def row(task: task_pb2.Task) -> tuple[str | Text, ...]:
    """A line of a table."""
    return (
        last(task.name),
        task.kind,
        state_of(task),
        schedule_of(task.schedule),
        ahead(task.next_fire_time),
        age(task.update_time),
        shorten(task.display_name),
    )


def hit_row(hit: task_pb2.SearchTasksResponse.Hit) -> tuple[str | Text, ...]:
    """A task that a search found."""
    return last(hit.task.name), hit.task.kind, matched(hit.snippet)


def passage_row(hit: task_pb2.SearchTasksResponse.Hit) -> tuple[str | Text, ...]:
    """A passage that a search found."""
    return shorten(hit.passage.source), shorten(" > ".join(hit.passage.headings)), matched(hit.snippet)


def matched(snippet: str) -> Text:
    """What surrounds the first match of a snippet, on one line; matches, which it has between `**`, are bold."""
    from rich.text import Text

    words = clean(" ".join(snippet.split()))
    before, mark, rest = words.partition("**")
    if mark and len(before) > _BEFORE_A_MATCH:
        before = "… " + before[-_BEFORE_A_MATCH:].partition(" ")[2]
    parts = f"{before}{mark}{rest}".split("**")
    return Text.assemble(*((part, "bold") if number % 2 else part for number, part in enumerate(parts)))


def state_of(task: task_pb2.Task) -> Text:
    """`active` or `paused`."""
    from rich.text import Text
    from stationmaster.v1 import task_pb2

    state = plain(task_pb2.TaskState.Name(task.state), "TASK_STATE")
    return Text(state, "yellow" if state == "paused" else "green")


def schedule_of(schedule: task_pb2.Schedule) -> str:
    """When it is due, as options give it; the zone only if it is not UTC."""
    if schedule.HasField("every"):
        return f"every {span(schedule.every)}"
    zone = "" if schedule.time_zone in ("", "UTC") else f" {schedule.time_zone}"
    return f"{schedule.cron}{zone}" if schedule.cron else ""


def ahead(time: Timestamp) -> str:
    """How far off, roughly."""
    if not time.ByteSize():
        return ""
    seconds = (time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"in {seconds / size:.0f} {unit}"
    return f"in {seconds:.0f} s" if seconds >= 1 else "now"


def span(duration: Duration) -> str:
    """`90 s`, `5:00`, `2:00:00`, `3 d`."""
    seconds = duration.ToTimedelta().total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return took(seconds)


def describe(out: Output, task: task_pb2.Task) -> None:
    """Everything about one."""
    if out.as_json:
        out.json(task)
        return
    from stationmaster_client.cli.executions_shown import in_full

    out.details(
        [
            ("task", task.name),
            ("name", task.display_name),
            ("description", task.description),
            ("kind", task.kind),
            ("state", state_of(task).append(clean(f" · {task.state_reason}" if task.state_reason else ""))),
            *((f"payload {name}", in_full(value)) for name, value in values(task.payload).items()),
            *((f"variable {one.name}", _variable(one)) for one in task.variables),
            ("schedule", schedule_of(task.schedule)),
            ("", _schedule_details(task.schedule)),
            (
                "next due",
                f"{moment(task.next_fire_time)} · {ahead(task.next_fire_time)}"
                if task.HasField("next_fire_time")
                else "",
            ),
            ("last due", moment(task.last_fire_time)),
            ("fired", _fired(task)),
            ("options", _options(task.options)),
            ("dependencies", _mode(task)),
            ("labels", ", ".join(f"{key}={value}" for key, value in sorted(task.labels.items()))),
            ("owner", task.user),
            ("created", moment(task.create_time)),
            ("changed", moment(task.update_time)),
        ]
    )


def _variable(one: task_pb2.VariableDeclaration) -> str:
    from google.protobuf.json_format import MessageToDict
    from stationmaster.v1 import task_pb2

    from stationmaster_client.cli.executions_shown import outline

    parts = [plain(task_pb2.VariableType.Name(one.type), "VARIABLE_TYPE") if one.type else "string"]
    if one.required:
        parts.append("required")
    if one.HasField("default_value"):
        parts.append(f"default {outline(whole(MessageToDict(one.default_value)))}")
    if one.allowed_values:
        parts.append("one of " + ", ".join(outline(whole(MessageToDict(value))) for value in one.allowed_values))
    if one.description:
        parts.append(one.description)
    return " · ".join(parts)


def _schedule_details(schedule: task_pb2.Schedule) -> str:
    from stationmaster.v1 import task_pb2

    if not (schedule.cron or schedule.HasField("every")):
        return ""
    parts = [f"overlap {plain(task_pb2.OverlapPolicy.Name(schedule.overlap), 'OVERLAP_POLICY')}"]
    if schedule.catch_up.ByteSize():
        parts.append(f"catch up {span(schedule.catch_up)}")
    if schedule.jitter.ByteSize():
        parts.append(f"jitter {span(schedule.jitter)}")
    if schedule.pause_on_failure:
        parts.append("pauses on failure")
    if schedule.HasField("start_time"):
        parts.append(f"from {moment(schedule.start_time)}")
    if schedule.HasField("end_time"):
        parts.append(f"until {moment(schedule.end_time)}")
    return " · ".join(parts)


def _fired(task: task_pb2.Task) -> str:
    skipped = ", ".join(f"{count:,} {reason.lower()}" for reason, count in sorted(task.skip_counts.items()) if count)
    parts = [f"{task.fire_count:,} times" if task.fire_count else "", f"skipped: {skipped}" if skipped else ""]
    return " · ".join(part for part in parts if part)


def _options(options: task_pb2.ExecutionOptions) -> str:
    from stationmaster.v1 import storage_pb2, task_pb2

    parts = []
    if options.priority:
        parts.append(f"priority {plain(task_pb2.ExecutionPriority.Name(options.priority), 'EXECUTION_PRIORITY')}")
    if options.retry.max_attempts:
        parts.append(f"{options.retry.max_attempts} attempts")
    if options.timeouts.start_to_close.ByteSize():
        parts.append(f"at most {span(options.timeouts.start_to_close)} each")
    if options.HasField("concurrency"):
        parts.append(_at_once(options.concurrency))
    if options.HasField("rate"):
        parts.append(f"{options.rate.limit} in {span(options.rate.per)} of {options.rate.key}")
    formats = [plain(storage_pb2.ReportFormat.Name(one), "REPORT_FORMAT") for one in options.report_formats]
    if formats:
        parts.append(f"reports {', '.join(formats)}")
    return " · ".join(parts)


def _at_once(concurrency: task_pb2.ExecutionConcurrency) -> str:
    from stationmaster.v1 import task_pb2

    strategy = plain(task_pb2.ConcurrencyStrategy.Name(concurrency.strategy), "CONCURRENCY_STRATEGY")
    what = "" if strategy in ("unspecified", "wait", "") else f", {strategy.replace('_', ' ')}"
    key = f" of {concurrency.key}" if concurrency.key else ""
    return f"{concurrency.max_running or 1} at once{key}{what}"


def _mode(task: task_pb2.Task) -> str:
    from stationmaster.v1 import task_pb2

    return "only hold it back (gate)" if task.dependency_mode == task_pb2.DEPENDENCY_MODE_GATE else ""
