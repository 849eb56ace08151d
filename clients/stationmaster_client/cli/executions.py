"""stationmaster executions: runs of tasks, and of work without a task."""

from __future__ import annotations

from typing import Annotated

import typer

from stationmaster_client.cli import execution_options as how
from stationmaster_client.cli import given, resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit, OrderBy, pairs, query
from stationmaster_client.names import full

app = group("Runs of tasks, and of work without a task.")

EXECUTION_HELP = "Id or name; the end of an id is enough, - is the newest."
Execution = Annotated[str, typer.Argument(help=EXECUTION_HELP, metavar="EXECUTION")]
Filter = Annotated[
    str, typer.Option("--filter", "-f", metavar="EXPRESSION", help="For example 'state = FAILED' (AIP-160).")
]
OfTask = Annotated[str, typer.Option("--task", "-t", metavar="TASK", help="Only those of this task.")]


@command(app, "list")
async def list_executions(
    run: Run, condition: Filter = "", task: OfTask = "", order_by: OrderBy = "", limit: Limit = 50
) -> None:
    """List executions, newest first (-f 'state = FAILED', --task nightly)."""
    from stationmaster.v1 import task_pb2

    from stationmaster_client.cli.executions_shown import row

    await show(
        run.out,
        run.client.executions.list(**query(_condition(condition, task), order_by, limit)),
        task_pb2.ListExecutionsResponse(),
        "executions",
        limit=limit,
        columns=("EXECUTION", "TASK", "STATE", "BEGUN BY", "SUBMITTED", "TOOK#", "MESSAGE"),
        row=row,
        empty="No executions. Begin one: stationmaster tasks run TASK",
    )


@command(app, "show", also="get")
async def show_execution(run: Run, execution: Execution) -> None:
    """Show one execution: how it stands, what it was given, what it made (with --json all of it)."""
    from stationmaster_client.cli.executions_shown import describe

    describe(run.out, await run.client.executions.get(await resolve.execution(run.client, execution)))


@command(app, "watch")
async def watch(
    run: Run,
    execution: Execution,
    after: Annotated[int, typer.Option("--after", min=0, help="Begin after this event; 0: at the beginning.")] = 0,
    report: how.ReportFiles = [],  # noqa: B006
    force: how.Force = False,
) -> None:
    """Follow an execution to its end, over restarts of the server. Ends with 0, 1 (failed) or 9 (cancelled)."""
    from stationmaster_client.cli.execution_watch import follow, report_targets, require_asked

    targets = report_targets(report, force=force)
    name = await resolve.execution(run.client, execution)
    if targets:
        require_asked(await run.client.executions.get(name), targets)
    await follow(run, name, after, targets)


@command(app, "cancel")
async def cancel(
    run: Run,
    execution: Execution,
    reason: Annotated[str, typer.Option("--reason", help="Why.")] = "",
) -> None:
    """Cancel an execution: at once while it waits, within a second while it runs."""
    from stationmaster_client.cli.executions_shown import state_of

    name = await resolve.execution(run.client, execution)
    found = await run.client.executions.cancel(name, reason)
    if run.out.as_json:
        run.out.json(found)
    elif found.HasField("end_time"):
        run.out.print(f"{found.name} is {state_of(found)}")
    else:
        run.out.print(f"{found.name} is being cancelled")


@command(app, "retry")
async def retry(
    run: Run,
    execution: Annotated[str, typer.Argument(help=EXECUTION_HELP, metavar="[EXECUTION]")] = "",
    condition: Annotated[
        str,
        typer.Option("--filter", "-f", metavar="EXPRESSION", help="All failed ones of a filter: 'kind = \"crawl\"'."),
    ] = "",
    task: Annotated[str, typer.Option("--task", "-t", metavar="TASK", help="All failed ones of a task.")] = "",
) -> None:
    """Queue failed executions again, with all their attempts: one, or those of a filter (at most 1,000)."""
    from stationmaster.v1 import task_pb2

    condition = _condition(condition, task)
    if bool(execution) == bool(condition):
        raise CommandError("name an execution, or give --filter or --task")
    name = await resolve.execution(run.client, execution) if execution else ""
    names = await run.client.executions.retry(name, filter=condition)
    if task and not names:
        await run.client.tasks.get(task)  # is refused when there is no such task
    if run.out.as_json:
        run.out.json(task_pb2.RetryExecutionResponse(names=names))
        return
    for one in names:
        run.out.print(f"{one} is queued again")
    if not names:
        run.out.note("None of them has failed.")


@command(app, "submit")
async def submit(
    run: Run,
    kind: how.Kind,
    payload: how.Payload = [],  # noqa: B006
    watch: how.Watch = False,
    report: how.ReportFiles = [],  # noqa: B006
    force: how.Force = False,
    at: how.At = "",
    key: how.Key = "",
    label: how.Labels = [],  # noqa: B006
    priority: how.Priority = "",
    attempts: how.Attempts = None,
    time_limit: how.TimeLimit = "",
    max_running: how.MaxRunning = 0,
    concurrency_key: how.ConcurrencyKey = "",
    strategy: how.Strategy = "",
) -> None:
    """Run something once, without a task: --kind prompt -p model=demo -p prompt='what is 6*7' --watch."""
    from stationmaster.v1 import task_pb2

    from stationmaster_client.cli.execution_watch import report_targets
    from stationmaster_client.cli.task_runs import begun

    targets = report_targets(report, force=force)
    options = task_pb2.ExecutionOptions(report_formats=dict.fromkeys(targets.values()))
    how.set_options(
        options,
        priority=priority,
        attempts=attempts,
        time_limit=time_limit,
        max_running=max_running,
        key=concurrency_key,
        strategy=strategy,
    )
    execution = await run.client.executions.submit(
        kind,
        given.values(payload, "--payload"),
        options=options,
        run_time=given.moment(at, "--at"),
        idempotency_key=key,
        labels=pairs(label, "--label"),
    )
    await begun(run, execution, targets, watch=watch)


def _condition(condition: str, task: str) -> str:
    if not task:
        return condition
    of_it = f'task = "{full("tasks", task)}"'
    return f"{of_it} AND ({condition})" if condition else of_it
