"""Prompts, differences and analytics as people see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stationmaster_client.cli.output import age, dollars, moment, plain
from stationmaster_client.names import last

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from rich.text import Text
    from stationmaster.v1 import prompt_pb2 as pb
    from stationmaster.v1 import task_pb2

    from stationmaster_client.cli.command import Run


def described(run: Run, prompt: pb.Prompt) -> None:
    """One prompt, its template last."""
    if run.out.as_json:
        run.out.json(prompt)
        return
    run.out.details(
        [
            ("prompt", prompt.name),
            ("name", prompt.display_name),
            ("description", prompt.description),
            ("tags", ", ".join(prompt.tags)),
            ("version", f"{prompt.version} of {prompt.latest_version}"),
            ("message", prompt.message),
            ("author", prompt.author),
            ("labels", labels_of(prompt)),
            ("protected", ", ".join(prompt.protected_labels)),
            ("default", prompt.default_label),
            ("variables", ", ".join(map(declared, prompt.variables))),
            ("attributes", ", ".join(map(declared, prompt.context_attributes))),
            ("rules", "\n".join(_rule(place, rule) for place, rule in enumerate(prompt.rules))),
            ("includes", ", ".join(prompt.includes)),
            ("created", moment(prompt.create_time)),
            ("changed", moment(prompt.update_time)),
        ]
    )
    run.out.print()
    run.out.print(prompt.template)


def labels_of(prompt: pb.Prompt) -> str:
    """`production=3, staging=4`."""
    return ", ".join(f"{label}={version}" for label, version in sorted(prompt.labels.items()))


def declared(variable: task_pb2.VariableDeclaration) -> str:
    """`count: integer`, with a star when it is required."""
    from stationmaster.v1 import task_pb2

    kind = plain(task_pb2.VariableType.Name(variable.type), "VARIABLE_TYPE")
    return f"{variable.name}{'*' if variable.required else ''}: {kind}"


def _rule(place: int, rule: pb.PromptRule) -> str:
    return f"rule {place}, priority {rule.priority}: {rule.condition} -> {rule.label or rule.version}"


def row(prompt: pb.Prompt) -> tuple[str, ...]:
    """Of the list."""
    return (
        last(prompt.name),
        str(prompt.latest_version),
        labels_of(prompt),
        age(prompt.update_time),
        prompt.display_name,
    )


def version_row(version: pb.PromptVersion) -> tuple[str, ...]:
    """Of the list of versions."""
    return str(version.version), ", ".join(version.labels), age(version.create_time), version.message


def difference(diff: pb.DiffPromptVersionsResponse) -> Text:
    """The lines, coloured as everybody knows them."""
    from rich.text import Text
    from stationmaster.v1 import prompt_pb2 as pb

    from stationmaster_client.cli.output import clean

    text = Text(f"--- version {diff.from_version}\n+++ version {diff.to_version}\n", style="bold")
    shown = {
        pb.DIFF_LINE_KIND_ADDED: ("+", "green"),
        pb.DIFF_LINE_KIND_REMOVED: ("-", "red"),
        pb.DIFF_LINE_KIND_SAME: (" ", "not bold"),
        pb.DIFF_LINE_KIND_SKIPPED: ("…", "dim not bold"),
    }
    for line in diff.lines:
        mark, style = shown.get(line.kind, (" ", ""))
        text.append(f"{mark}{clean(line.text)}\n", style=f"{style} not bold" if style in ("green", "red") else style)
    for change in diff.variables:
        if change.HasField("before"):
            text.append(f"-variable {declared(change.before)}\n", style="red not bold")
        if change.HasField("after"):
            text.append(f"+variable {declared(change.after)}\n", style="green not bold")
    text.rstrip()
    return text


def analytics_row(point: pb.AnalyticsPoint, *, timed: bool) -> tuple[str, ...]:
    """Of the table of figures."""
    from stationmaster.v1 import prompt_pb2 as pb

    outcomes = ", ".join(
        f"{plain(pb.OutcomeMetric.Name(each.metric), 'OUTCOME_METRIC')} {each.mean:.4g} ({each.count})"
        for each in point.outcomes
    )
    when = (moment(point.start_time),) if timed else ()
    return (
        *when,
        str(point.version),
        point.label,
        f"{point.renders:,}",
        f"{point.errors:,}" if point.errors else "",
        _milliseconds(point.latency_p50),
        _milliseconds(point.latency_p99),
        f"{point.input_tokens + point.output_tokens:,}" if point.model_calls else "",
        dollars(point.cost_micros),
        outcomes,
    )


def _milliseconds(span: Duration) -> str:
    return f"{span.ToMicroseconds() / 1000:.2f}" if span.ByteSize() else ""
