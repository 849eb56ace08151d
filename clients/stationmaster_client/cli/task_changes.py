"""stationmaster tasks, continued: create and update, from a file, from options, or from a file with options on top."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import execution_options as how
from stationmaster_client.cli import given
from stationmaster_client.cli import schedule_options as when
from stationmaster_client.cli.command import Run, command
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.files import read_message
from stationmaster_client.cli.options import pairs
from stationmaster_client.cli.tasks import Task, app
from stationmaster_client.cli.tasks_shown import describe

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from stationmaster.v1 import task_pb2

_CHANGEABLE = (
    *("display_name", "description", "payload", "variables", "schedule", "options"),
    *("dependency_mode", "labels"),
)
_VARIABLE = re.compile(r"(?P<name>\w+)(?::(?P<type>\w+))?(?:=(?P<default>.*))?", re.DOTALL)

File = Annotated[Path | None, typer.Option("--file", help="YAML, JSON or TOML with the task's fields.")]
Variables = Annotated[
    list[str],
    typer.Option(
        "--var",
        "-v",
        metavar="NAME[:TYPE][=DEFAULT]",
        help="Declare a variable; types: string, integer, number, boolean, list, object. Required without default.",
    ),
]
Name = Annotated[str, typer.Option("--name", help="A name for people.")]
Description = Annotated[str, typer.Option("--description", help="What it is for.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")]


@command(app, "create")
async def create(
    run: Run,
    task_id: Annotated[str, typer.Argument(help="The id; may stand in the file.", metavar="ID")] = "",
    file: File = None,
    kind: how.Kind = "",
    payload: how.Payload = [],  # noqa: B006
    var: Variables = [],  # noqa: B006
    cron: when.Cron = "",
    every: when.Every = "",
    time_zone: when.TimeZone = "",
    overlap: when.Overlap = "",
    catch_up: when.CatchUp = "",
    report: how.Formats = [],  # noqa: B006
    name: Name = "",
    description: Description = "",
    label: how.Labels = [],  # noqa: B006
    priority: how.Priority = "",
    attempts: how.Attempts = None,
    time_limit: how.TimeLimit = "",
    max_running: how.MaxRunning = 0,
    concurrency_key: how.ConcurrencyKey = "",
    strategy: how.Strategy = "",
    dry_run: DryRun = False,
) -> None:
    """Make a task from options, from a file, or from a file with options on top."""
    from stationmaster.v1 import task_pb2

    task = task_pb2.Task()
    if file is not None:
        named, task = read_message(file, task, "tasks")
        task_id = task_id or named
    task.kind = kind or task.kind
    if not task_id or not task.kind:
        raise CommandError(
            "an id and a kind are needed: stationmaster tasks create hello --kind prompt -p model=demo -p prompt='Hi'"
        )
    _apply(task, payload, var, name, description, label)
    when.set_schedule(task, cron, every, time_zone, overlap, catch_up)
    how.set_options(
        task.options,
        priority=priority,
        attempts=attempts,
        time_limit=time_limit,
        max_running=max_running,
        key=concurrency_key,
        strategy=strategy,
        formats=report,
    )
    describe(run.out, await run.client.tasks.create(task_id, task, validate_only=dry_run))


@command(app, "update")
async def update(
    run: Run,
    task: Task,
    file: File = None,
    payload: how.Payload = [],  # noqa: B006
    var: Variables = [],  # noqa: B006
    cron: when.Cron = "",
    every: when.Every = "",
    time_zone: when.TimeZone = "",
    overlap: when.Overlap = "",
    catch_up: when.CatchUp = "",
    no_schedule: Annotated[bool, typer.Option("--no-schedule", help="Take the schedule away.")] = False,
    report: how.Formats = [],  # noqa: B006
    name: Name = "",
    description: Description = "",
    label: how.Labels = [],  # noqa: B006
    priority: how.Priority = "",
    attempts: how.Attempts = None,
    time_limit: how.TimeLimit = "",
    max_running: how.MaxRunning = 0,
    concurrency_key: how.ConcurrencyKey = "",
    strategy: how.Strategy = "",
    dry_run: DryRun = False,
) -> None:
    """Change a task: fields of a file replace the old ones, --payload, --var and --label add to them (KEY= removes)."""
    current = await run.client.tasks.get(task)
    before = type(current).FromString(current.SerializeToString())
    if file is not None:
        _, wanted = read_message(file, type(current)(), "tasks")
        if wanted.kind not in ("", current.kind):
            raise CommandError(f"{current.name} is of the kind {current.kind}, which cannot be changed")
        _replace(current, wanted)
    _apply(current, payload, var, name, description, label)
    if no_schedule:
        current.ClearField("schedule")
    when.set_schedule(current, cron, every, time_zone, overlap, catch_up)
    how.set_options(
        current.options,
        priority=priority,
        attempts=attempts,
        time_limit=time_limit,
        max_running=max_running,
        key=concurrency_key,
        strategy=strategy,
        formats=report,
    )
    changed = [path for path in _CHANGEABLE if getattr(current, path) != getattr(before, path)]
    if not changed:
        raise CommandError("nothing to change: give options or --file")
    describe(run.out, await run.client.tasks.update(current, changed, validate_only=dry_run))


def _replace(current: Message, wanted: Message) -> None:
    """Put the fields that are set in the place of the old ones."""
    for field, _ in wanted.ListFields():
        current.ClearField(field.name)
    current.MergeFrom(wanted)


def _apply(
    task: task_pb2.Task,
    payload: list[str],
    variables: list[str],
    name: str,
    description: str,
    labels: list[str],
) -> None:
    """Put what the options say over what is there."""
    task.display_name = name or task.display_name
    task.description = description or task.description
    if payload:
        task.payload.update(given.values(payload, "--payload"))
    for text in variables:
        _declare(task, text)
    for key, value in pairs(labels, "--label").items():
        if value:
            task.labels[key] = value
        else:
            task.labels.pop(key, None)


_EXPECTED = {
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "list": 'a JSON list: ["a", "b"]',
    "object": 'a JSON object: {"a": 1}',
}


def _declare(task: task_pb2.Task, text: str) -> None:
    """Declare a variable, instead of one of its name."""
    from stationmaster.v1 import task_pb2

    from stationmaster_client.values import to_value

    parts = _VARIABLE.fullmatch(text)
    kinds = [one.removeprefix("VARIABLE_TYPE_").lower() for one in task_pb2.VariableType.keys()[1:]]
    kind = (parts["type"] or "string").lower() if parts else ""
    if parts is None or kind not in kinds:
        raise CommandError(f"--var {text!r}: write NAME, NAME:TYPE or NAME:TYPE=DEFAULT; types are {', '.join(kinds)}")
    declared = task_pb2.VariableDeclaration(
        name=parts["name"], type=task_pb2.VariableType.Value(f"VARIABLE_TYPE_{kind.upper()}")
    )
    default = parts["default"]
    if default is None:
        declared.required = True
    else:
        declared.default_value.CopyFrom(
            to_value(default if kind == "string" else _json(text, default, _EXPECTED.get(kind, kind)))
        )
    for place, one in enumerate(task.variables):
        if one.name == declared.name:
            task.variables[place].CopyFrom(declared)
            return
    task.variables.append(declared)


def _json(option: str, text: str, kind: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f"--var {option!r}: expected {kind}, not {text!r}") from error
