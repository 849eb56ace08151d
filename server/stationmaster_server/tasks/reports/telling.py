"""What is known of an execution, put together for its report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stationmaster_server.agents import runtime
from stationmaster_server.events.model import Event
from stationmaster_server.sessions.model import Message, MessageRole
from stationmaster_server.tasks.model import Execution, execution_name, task_name
from stationmaster_server.tasks.reports.attempts import attempts_of
from stationmaster_server.tasks.reports.fields import given, made
from stationmaster_server.tasks.reports.model import (
    Attempt,
    Entry,
    ModelUsage,
    Progress,
    ProgressMessage,
    Report,
    Section,
    Span,
    SpanKind,
    ToolCall,
    Totals,
)


def tell(
    execution: Execution,
    title: str,
    events: Sequence[Event],
    messages: Sequence[Message],
    sections: Sequence[Section] | None,
    notes: Sequence[str] = (),
    owner_name: str = "",
) -> Report:
    """The report of an execution that has ended: from its row, its stream, and the session that it ran in.

    `sections` None: its kind leaves it to a table of its result. `notes`: what of these is not all there was.
    """
    attempts = attempts_of(execution, events)
    results = {part.call_id: part for part in _parts(messages, runtime.ToolResult)}
    return Report(
        title=title,
        execution=execution_name(execution.id),
        kind=execution.kind,
        state=execution.state.value,
        owner=f"users/{execution.user_id}",
        owner_name=owner_name,
        created_at=execution.created_at,
        task=task_name(execution.task_id) if execution.task_id else None,
        reason=execution.reason,
        started_at=execution.started_at,
        finished_at=execution.finished_at,
        attempts=attempts,
        spans=_spans(execution, attempts, messages),
        conversation=tuple(_entry(message, results) for message in messages if message.role is not MessageRole.TOOL),
        totals=_totals(messages),
        progress=_progress(execution, events),
        sections=(*given(execution), *(made(execution) if sections is None else sections)),
        notes=tuple(notes),
    )


def _spans(execution: Execution, attempts: Sequence[Attempt], messages: Sequence[Message]) -> tuple[Span, ...]:
    spans: list[Span] = []
    waits = execution.created_at
    for attempt in attempts:
        if attempt.started_at is None:
            continue
        spans.append(Span(SpanKind.QUEUED, "" if attempt.number == 1 else "retry", waits, attempt.started_at))
        failed = attempt.state == "FAILED"
        spans.append(Span(SpanKind.ATTEMPT, str(attempt.number), attempt.started_at, attempt.finished_at, failed))
        waits = attempt.finished_at or attempt.started_at
    for message in messages:
        made = message.provenance
        if made is not None:
            began = message.created_at - made.latency
            spans.append(Span(SpanKind.MODEL, made.model, began, message.created_at, message.interrupted))
    return tuple(spans)


def _entry(message: Message, results: Mapping[str, runtime.ToolResult]) -> Entry:
    made = message.provenance
    usage = made.usage if made else runtime.Usage()
    text = "".join(part.text for part in message.parts if isinstance(part, runtime.Text))
    calls = [part for part in message.parts if isinstance(part, runtime.ToolCall)]
    return Entry(
        role=message.role.value.lower(),
        text=text,
        created_at=message.created_at,
        model=made.model if made else "",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_micros=usage.cost_micros,
        latency=made.latency if made else None,
        tool_calls=tuple(_call(call, results.get(call.call_id)) for call in calls),
        note="interrupted" if message.interrupted else "",
    )


def _call(call: runtime.ToolCall, result: runtime.ToolResult | None) -> ToolCall:
    arguments = json.dumps(call.arguments, ensure_ascii=False, indent=2, default=str)
    if result is None:
        return ToolCall(call.tool, arguments, "", "INTERRUPTED")
    return ToolCall(call.tool, arguments, result.content, "FAILED" if result.is_error else "SUCCEEDED")


def _totals(messages: Sequence[Message]) -> Totals:
    models: dict[str, ModelUsage] = {}
    for message in messages:
        made = message.provenance
        if made is not None:
            so_far = models.get(made.model, ModelUsage(made.model))
            models[made.model] = ModelUsage(
                made.model,
                so_far.calls + 1,
                so_far.input_tokens + made.usage.input_tokens,
                so_far.output_tokens + made.usage.output_tokens,
                so_far.cost_micros + made.usage.cost_micros,
            )
    calls = sum(1 for _ in _parts(messages, runtime.ToolCall))
    return Totals(len(messages), calls, tuple(models.values()))


def _parts(messages: Sequence[Message], kind: type[Any]) -> list[Any]:
    return [part for message in messages for part in message.parts if isinstance(part, kind)]


def _progress(execution: Execution, events: Sequence[Event]) -> Progress:
    said = [(event.created_at, event.body["text"]) for event in events if event.kind == "execution_log"]
    newest: dict[str, Any] = {}
    for event in events:
        if event.kind == "execution_progress":
            newest = event.body
    counters = newest.get("counters") or execution.progress.counters
    return Progress(newest.get("fraction"), counters, tuple(ProgressMessage(at, text) for at, text in said))
