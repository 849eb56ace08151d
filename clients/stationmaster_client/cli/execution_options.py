"""Options that say how executions are run, and what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import given
from stationmaster_client.cli.download import format_of
from stationmaster_client.cli.errors import CommandError

if TYPE_CHECKING:
    from stationmaster.v1 import task_pb2

_PANEL = "How it is run"
_PRIORITIES = ("urgent", "high", "normal", "low", "idle")
_STRATEGIES = ("wait", "cancel-running", "cancel-newest")


def _option(name: str, text: str, metavar: str | None = None, least: int | None = None) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option(
        name, help=text, metavar=metavar, min=least, show_default=False, rich_help_panel=_PANEL
    )
    return found


KINDS = ("prompt", "crawl", "webhook", "process", "export", "cleanup")
"""Those of every server."""
Kind = Annotated[
    str, typer.Option("--kind", "-k", help=f"What it does: {', '.join(KINDS)}, or a kind of the server's plug-ins.")
]
Payload = Annotated[
    list[str], typer.Option("--payload", "-p", metavar="KEY=TEXT", help=f"What the kind needs: {given.HOW}.")
]
Values = Annotated[
    list[str], typer.Option("--var", "-v", metavar="NAME=VALUE", help=f"A variable's value: {given.HOW}.")
]
Priority = Annotated[str, _option("--priority", "Which goes first.", "|".join(_PRIORITIES))]
Attempts = Annotated[int | None, _option("--attempts", "How often it is tried at most; 3 if you do not say.", least=1)]
TimeLimit = Annotated[str, _option("--time-limit", "Of one attempt: 90s, 5m, 2h; else one hour.", "SPAN")]
MaxRunning = Annotated[int, _option("--max-running", "How many of the task, or of a key, run at once.", least=0)]
ConcurrencyKey = Annotated[
    str, _option("--concurrency-key", "Whose executions --max-running counts; of a task a template.", "KEY")
]
Strategy = Annotated[str, _option("--strategy", "What becomes of one more; else it waits.", "|".join(_STRATEGIES))]
Formats = Annotated[
    list[str], typer.Option("--report", metavar="FORMATS", help="Reports made at the end: pdf,html,md,json; or none.")
]
ReportFiles = Annotated[
    list[str],
    typer.Option(
        "--report", metavar="FILE", help="Wait for a report, as FILE's ending says, and save it; may be repeated."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end; Ctrl-C leaves it running.")]
At = Annotated[str, typer.Option("--at", metavar="TIME", help="Not before: 2026-03-01T07:30, or +2h.")]
Key = Annotated[
    str, typer.Option("--key", help="The same key within 24 hours gives the same execution instead of another one.")
]
Labels = Annotated[list[str], typer.Option("--label", metavar="KEY=VALUE", help="A label; may be repeated.")]


def set_options(
    options: task_pb2.ExecutionOptions,
    *,
    priority: str = "",
    attempts: int | None = None,
    time_limit: str = "",
    max_running: int = 0,
    key: str = "",
    strategy: str = "",
    formats: list[str] | None = None,
) -> None:
    """Put what the options say over what is there."""
    if priority:
        options.priority = priority_of(priority)
    if attempts:
        options.retry.max_attempts = attempts
    limit = given.span(time_limit, "--time-limit")
    if limit is not None:
        options.timeouts.start_to_close.FromTimedelta(limit)
    if max_running:
        options.concurrency.max_running = max_running
    if key:
        options.concurrency.key = key
    if strategy:
        options.concurrency.strategy = _strategy_of(strategy)
    if formats:
        names = [name for text in formats for name in text.split(",") if name and name != "none"]
        options.report_formats[:] = dict.fromkeys(format_of(name, "--report") for name in names)


def _strategy_of(text: str) -> task_pb2.ConcurrencyStrategy.ValueType:
    from stationmaster.v1 import task_pb2

    if text not in _STRATEGIES:
        raise CommandError(f"--strategy {text!r}: write one of {', '.join(_STRATEGIES)}")
    return task_pb2.ConcurrencyStrategy.Value(f"CONCURRENCY_STRATEGY_{text.upper().replace('-', '_')}")


def priority_of(text: str) -> task_pb2.ExecutionPriority.ValueType:
    """A priority by its name. Raises CommandError."""
    from stationmaster.v1 import task_pb2

    if text not in _PRIORITIES:
        raise CommandError(f"--priority {text!r}: write one of {', '.join(_PRIORITIES)}")
    return task_pb2.ExecutionPriority.Value(f"EXECUTION_PRIORITY_{text.upper()}")
