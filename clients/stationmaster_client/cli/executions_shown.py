"""How executions are shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stationmaster_client.cli import resolve
from stationmaster_client.cli.output import Output, age, clean, moment, plain
from stationmaster_client.cli.progress import between, told
from stationmaster_client.cli.transcript import shorten
from stationmaster_client.names import last
from stationmaster_client.structs import values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.struct_pb2 import Struct
    from rich.text import Text
    from stationmaster.v1 import event_pb2, task_pb2

_MOST_SHOWN, _MOST_LINES = 4_000, 100
STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


def state_of(execution: task_pb2.Execution) -> str:
    """`running`, `succeeded` and so on."""
    from stationmaster.v1 import task_pb2

    return plain(task_pb2.ExecutionState.Name(execution.state), "EXECUTION_STATE")


def styled(state: str) -> Text:
    """A state in its colour."""
    from rich.text import Text

    return Text(state, STYLES.get(state, ""))


def row(execution: task_pb2.Execution) -> tuple[str | Text, ...]:
    """A line of a table."""
    from stationmaster.v1 import task_pb2

    now = _progress(execution.progress) if state_of(execution) == "running" else ""
    return (
        resolve.short(execution.name),
        last(execution.task) or execution.kind,
        styled(state_of(execution)),
        plain(task_pb2.ExecutionTrigger.Name(execution.trigger), "EXECUTION_TRIGGER"),
        age(execution.create_time),
        between(execution.start_time, execution.end_time),
        shorten(now or execution.message or execution.reason),
    )


def ending(execution: task_pb2.Execution, counters: Mapping[str, int]) -> tuple[str, str]:
    """How it ended, on one line, with what it counted last, and the style of that."""
    state = state_of(execution)
    mark = {"succeeded": "✓", "failed": "✗"}.get(state, "■")
    took = between(execution.start_time, execution.end_time)
    parts = [f"{mark} {state}{f' in {took}' if took else ''}"]
    if execution.attempt_count > 1:
        parts[0] += f", {execution.attempt_count} attempts"
    if why := execution.message or (execution.reason if state != "succeeded" else ""):
        parts.append(why)
    if counts := told("", counters):
        parts.append(counts)
    return clean(" · ".join(parts)), STYLES.get(state, "yellow")


def result_lines(out: Output, execution: task_pb2.Execution, said: str) -> None:
    """The result: at a terminal its outline, else all of it; without what a model has said already."""
    result = values(execution.result)
    if said and result.get("text") == said:
        if out.console.is_terminal:
            out.details((name, outline(value)) for name, value in result.items() if name != "text")
    elif out.console.is_terminal:
        out.details((name, outline(value)) for name, value in result.items())
        out.note(f"All of it: stationmaster executions show {resolve.short(execution.name)} --json")
    else:
        out.print(json.dumps(result, ensure_ascii=False, indent=2))


def outline(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, str):
        return shorten(value)
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return f"{len(value):,} items"
    return shorten(json.dumps(value, ensure_ascii=False))


def in_full(value: Any) -> str:
    """A text with all its lines, within bounds; anything else on one line."""
    if not isinstance(value, str):
        return outline(value)
    text = value.strip("\n")
    shown = "\n".join(text[:_MOST_SHOWN].split("\n")[:_MOST_LINES])
    left = len(text) - len(shown)
    return f"{shown}\n… {left:,} more characters: --json shows all" if left else shown


def describe(out: Output, execution: task_pb2.Execution) -> None:
    """Everything about one."""
    from stationmaster.v1 import task_pb2

    if out.as_json:
        out.json(execution)
        return
    out.details(
        [
            ("execution", execution.name),
            ("task", execution.task),
            ("kind", execution.kind),
            ("state", _state(execution)),
            ("begun by", plain(task_pb2.ExecutionTrigger.Name(execution.trigger), "EXECUTION_TRIGGER")),
            ("due", moment(execution.scheduled_time)),
            ("priority", plain(task_pb2.ExecutionPriority.Name(execution.priority), "EXECUTION_PRIORITY")),
            ("progress", "" if state_of(execution) == "succeeded" else _progress(execution.progress)),
            ("reason", _reason(execution)),
            ("attempts", _attempts(execution)),
            *_failed(execution),
            ("session", execution.session),
            ("labels", ", ".join(f"{key}={value}" for key, value in sorted(execution.labels.items()))),
            ("reports", _reports(execution)),
            ("not before", "" if execution.HasField("start_time") else moment(execution.run_time)),
            ("submitted", moment(execution.create_time)),
            ("started", moment(execution.start_time)),
            ("ended", moment(execution.end_time)),
            ("took", between(execution.start_time, execution.end_time)),
            *_outlines("variable", execution.variables),
            *_outlines("payload", execution.payload),
            *_outlines("result", execution.result),
        ]
    )


def _state(execution: task_pb2.Execution) -> Text:
    why = execution.message or execution.reason
    if execution.cancel_requested and not execution.HasField("end_time"):
        why = "is being cancelled"
    return styled(state_of(execution)).append(clean(f" · {why}") if why else "")


def _reason(execution: task_pb2.Execution) -> str:
    """The reason for programs; of one that ran out of attempts with that of the last one."""
    if state_of(execution) != "failed" or not execution.failed_attempts:
        return ""
    at_last = execution.failed_attempts[-1].reason
    return f"{execution.reason} (at last {at_last})" if at_last and at_last != execution.reason else execution.reason


def _progress(progress: event_pb2.ExecutionProgress) -> str:
    share = f"{progress.fraction:.0%} " if progress.HasField("fraction") else ""
    return f"{share}{told(progress.message, progress.counters)}".strip()


def _reports(execution: task_pb2.Execution) -> str:
    from stationmaster.v1 import storage_pb2

    formats = [plain(storage_pb2.ReportFormat.Name(one), "REPORT_FORMAT") for one in execution.report_formats]
    asked = f"{', '.join(formats)}: not made yet" if formats else ""
    return ", ".join(execution.reports) or asked


def _outlines(what: str, struct: Struct) -> Iterator[tuple[str, str]]:
    return ((f"{what} {name}", in_full(value)) for name, value in values(struct).items())


def _rounds(execution: task_pb2.Execution) -> list[int]:
    """In which round each failed attempt was; whoever retries an execution gives it a new round of attempts."""
    found, before = list[int](), 0
    for one in execution.failed_attempts:
        found.append((found[-1] if found else 0) + (one.attempt <= before))
        before = one.attempt
    return found


def _attempts(execution: task_pb2.Execution) -> str:
    if not execution.attempt_count:
        return ""
    failed = execution.failed_attempts
    # One that runs, or succeeded, has not failed: it is of the round after that of a failed one with its number.
    good = state_of(execution) in ("running", "succeeded")
    newer = bool(failed) and failed[-1].attempt > execution.attempt_count - good
    retries = (_rounds(execution) or [0])[-1] + newer
    return f"{execution.attempt_count:,}{f' since retry {retries}' if retries else ''}"


def _failed(execution: task_pb2.Execution) -> Iterator[tuple[str, str]]:
    """Each with its error, unless that is what the execution ended with, which is told above."""
    for one, retries in zip(execution.failed_attempts, _rounds(execution), strict=True):
        name = f"retry {retries}: {one.attempt} failed" if retries else f"{one.attempt} failed"
        told = f" · {one.error}" if one.error != execution.message else ""
        yield name, f"{moment(one.end_time)}{told}"
