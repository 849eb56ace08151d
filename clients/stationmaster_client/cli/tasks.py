"""stationmaster tasks: work that is defined once and executed often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit, OrderBy, query
from stationmaster_client.cli.search_modes import Hybrid, Meaning, chosen
from stationmaster_client.cli.tasks_shown import describe, hit_row, passage_row, row
from stationmaster_client.names import full

if TYPE_CHECKING:
    from stationmaster.v1 import task_pb2

app = group("Tasks: work that is defined once and executed often.")

Task = Annotated[str, typer.Argument(help="The task's id.", metavar="TASK")]
Filter = Annotated[
    str, typer.Option("--filter", "-f", metavar="EXPRESSION", help="For example 'kind = \"crawl\"' (AIP-160).")
]


@command(app, "list")
async def list_tasks(run: Run, condition: Filter = "", order_by: OrderBy = "", limit: Limit = 50) -> None:
    """List tasks, newest first (-f 'state = PAUSED')."""
    from stationmaster.v1 import task_pb2

    await show(
        run.out,
        run.client.tasks.list(**query(condition, order_by, limit)),
        task_pb2.ListTasksResponse(),
        "tasks",
        limit=limit,
        columns=("TASK", "KIND", "STATE", "SCHEDULE", "NEXT", "CHANGED", "NAME"),
        row=row,
        empty="No tasks. Make one: stationmaster tasks create hello --kind prompt -p model=demo -p prompt='Say hello.'",
    )


@command(app, "show", also="get")
async def show_task(run: Run, task: Task) -> None:
    """Show one task: what it does, when, and how its last executions went."""
    found = await run.client.tasks.get(task)
    describe(run.out, found)
    if not run.out.as_json:
        await _recent(run, found)


async def _recent(run: Run, task: task_pb2.Task) -> None:
    from stationmaster_client.cli.executions_shown import row as execution_row

    page = await run.client.executions.list(filter=f'task = "{task.name}"', page_size=5).page()
    if page.executions:
        run.out.print()
        columns = ("EXECUTION", "STATE", "BEGUN BY", "SUBMITTED", "TOOK#", "MESSAGE")
        cells = map(execution_row, page.executions)
        run.out.table(columns, ((one[0], *one[2:]) for one in cells), empty="")


@command(app, "search")
async def search(
    run: Run,
    text: Annotated[str, typer.Argument(help='Words, "phrases", or and -not, as in a web search.', metavar="QUERY")],
    meaning: Meaning = False,
    hybrid: Hybrid = False,
    documents: Annotated[
        bool, typer.Option("--documents", help="Passages of documents, which tasks of the kind `process` made.")
    ] = False,
    limit: Limit = 20,
) -> None:
    """Find tasks, or passages of documents, by their words or by their meaning, best match first."""
    from stationmaster.v1 import task_pb2

    target = task_pb2.SEARCH_TARGET_DOCUMENTS if documents else task_pb2.SEARCH_TARGET_TASKS
    hits = run.client.tasks.search(
        text,
        mode=chosen(meaning, hybrid),
        targets=[target],
        page_size=min(limit, 1000),
    )
    await show(
        run.out,
        hits,
        task_pb2.SearchTasksResponse(),
        "hits",
        limit=limit,
        columns=("SOURCE", "SECTION", "TEXT") if documents else ("TASK", "KIND", "TEXT"),
        row=passage_row if documents else hit_row,
        empty="Nothing found.",
    )


@command(app, "delete")
async def delete(
    run: Run,
    task: Task,
    cancel_executions: Annotated[
        bool, typer.Option("--cancel-executions", help="Also end those that wait or run; else they go on.")
    ] = False,
) -> None:
    """Delete a task with its schedule and dependencies. Its executions stay."""
    from google.protobuf.empty_pb2 import Empty

    await run.client.tasks.delete(task, cancel_executions=cancel_executions)
    run.out.done(Empty(), f"{full('tasks', task)} is deleted")


@command(app, "pause")
async def pause(run: Run, task: Task, reason: Annotated[str, typer.Option("--reason", help="Why.")] = "") -> None:
    """Pause a task: neither its schedule nor its dependencies start it; `tasks run` still does."""
    describe(run.out, await run.client.tasks.pause(task, reason))


@command(app, "resume")
async def resume(run: Run, task: Task) -> None:
    """Resume a paused task. What was due meanwhile is counted as skipped."""
    describe(run.out, await run.client.tasks.resume(task))
