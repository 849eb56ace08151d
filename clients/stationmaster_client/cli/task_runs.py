"""stationmaster tasks, continued: run, render, backfill."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stationmaster_client.cli import execution_options as how
from stationmaster_client.cli import given, resolve
from stationmaster_client.cli.command import Run, command
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.executions_shown import state_of
from stationmaster_client.cli.options import pairs
from stationmaster_client.cli.output import age, moment
from stationmaster_client.cli.tasks import Task, app
from stationmaster_client.structs import values

if TYPE_CHECKING:
    from stationmaster.v1 import task_pb2

    from stationmaster_client.cli.execution_watch import Targets


@command(app, "run")
async def run_task(
    run: Run,
    task: Task,
    var: how.Values = [],  # noqa: B006
    watch: how.Watch = False,
    report: how.ReportFiles = [],  # noqa: B006
    force: how.Force = False,
    at: how.At = "",
    key: how.Key = "",
    label: how.Labels = [],  # noqa: B006
    priority: how.Priority = "",
    ignore_dependencies: Annotated[
        bool, typer.Option("--ignore-dependencies", help="Though what it depends on has not succeeded.")
    ] = False,
) -> None:
    """Execute a task. With --watch or --report it ends with 0 (succeeded), 1 (failed) or 9 (cancelled)."""
    from stationmaster.v1 import task_pb2

    from stationmaster_client.cli.execution_watch import report_targets

    targets, run_time = report_targets(report, force=force), given.moment(at, "--at")
    found = await run.client.tasks.get(task)
    options = task_pb2.ExecutionOptions()
    if targets:
        options.report_formats[:] = dict.fromkeys([*found.options.report_formats, *targets.values()])
    how.set_options(options, priority=priority)
    execution = await run.client.tasks.execute(
        task,
        variables_of(found, var),
        options=options,
        run_time=run_time,
        idempotency_key=key,
        labels=pairs(label, "--label"),
        ignore_dependencies=ignore_dependencies,
    )
    await begun(run, execution, targets, watch=watch)


async def begun(run: Run, execution: task_pb2.Execution, targets: Targets, *, watch: bool) -> None:
    """Follow an execution that was submitted, or tell its name and how to follow it."""
    from stationmaster_client.cli.execution_watch import follow

    if execution.existing:
        run.out.note(f"It was there already: submitted {age(execution.create_time)} with the same key.")
    if watch or targets:
        if not run.out.as_json:
            run.out.note(execution.name)
        await follow(run, execution.name, reports=targets)
    elif run.out.as_json:
        run.out.json(execution)
    else:
        run.out.print(execution.name)
        if state_of(execution) == "blocked":
            run.out.note(f"It {execution.message}. Not to wait: --ignore-dependencies.")
        run.out.note(f"Watch it: stationmaster executions watch {resolve.short(execution.name)}")


@command(app, "render")
async def render(run: Run, task: Task, var: how.Values = []) -> None:  # noqa: B006
    """Show what an execution would be given: the payload with its templates filled in."""
    found = await run.client.tasks.get(task)
    rendered = await run.client.tasks.render(task, variables_of(found, var))
    if run.out.as_json:
        run.out.json(rendered)
        return
    for name, value in values(rendered.payload).items():
        run.out.print(name, style="dim")
        run.out.print(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2))


@command(app, "backfill")
async def backfill(
    run: Run,
    task: Task,
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="Due at or after: 2026-03-01, or -7d.")],
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="Due before; now.", show_default=False)] = "-0s",
    var: how.Values = [],  # noqa: B006
    max_running: Annotated[int, typer.Option("--max-running", min=1, max=100, help="How many run at once.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be executed, change nothing.")] = False,
) -> None:
    """Execute a task for each time of the past that its schedule was due, except those that it was executed for."""
    since, until = given.moment(start, "--from"), given.moment(end, "--to")
    if since is None or until is None:
        raise CommandError("--from and --to need a time")
    if until <= since:
        raise CommandError("--to must be after --from")
    found = await run.client.tasks.get(task)
    answer = await run.client.tasks.backfill(
        task, since, until, variables_of(found, var), max_running=max_running, validate_only=dry_run
    )
    if run.out.as_json:
        run.out.json(answer)
        return
    names = answer.names or [""] * len(answer.times)
    run.out.table(
        ("DUE", "", "EXECUTION"),
        ((moment(time), age(time), resolve.short(name)) for time, name in zip(answer.times, names, strict=True)),
        empty="Nothing to be executed.",
    )
    done = "would be executed" if dry_run else "queued"
    left_out = f", {answer.skipped_count:,} left out: executed before" if answer.skipped_count else ""
    run.out.note(f"{len(answer.times):,} {done}{left_out}")


def variables_of(task: task_pb2.Task, texts: list[str]) -> dict[str, Any]:
    """Values of variables; texts are read as what the task declares: `count=3` is a number where it wants one."""
    from stationmaster.v1 import task_pb2

    as_text = (task_pb2.VARIABLE_TYPE_UNSPECIFIED, task_pb2.VARIABLE_TYPE_STRING)
    read = {one.name for one in task.variables if one.type not in as_text}
    found = given.values(texts, "--var")
    return {name: given.read_json(value) if name in read else value for name, value in found.items()}
