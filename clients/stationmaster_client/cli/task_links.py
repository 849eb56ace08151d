"""stationmaster tasks, continued: what waits for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.command import Run, command
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit
from stationmaster_client.cli.output import plain
from stationmaster_client.cli.tasks import Task, app
from stationmaster_client.names import full, last

if TYPE_CHECKING:
    from rich.text import Text
    from stationmaster.v1 import task_pb2

_POLICIES = ("block", "skip", "run-anyway")
_STYLES = {"satisfied": "green", "failed": "red", "pending": "yellow"}

On = Annotated[str, typer.Argument(help="The task that it waits for.", metavar="ON")]


@command(app, "depend")
async def depend(
    run: Run,
    task: Task,
    on: On,
    on_failure: Annotated[
        str,
        typer.Option(
            "--on-failure", metavar="|".join(_POLICIES), help="When that one fails: wait on, be cancelled, or run."
        ),
    ] = "block",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")] = False,
) -> None:
    """Let a task wait for another one: it starts once all that it depends on have succeeded."""
    from stationmaster.v1 import task_pb2

    if on_failure not in _POLICIES:
        raise CommandError(f"--on-failure {on_failure!r}: write one of {', '.join(_POLICIES)}")
    policy = task_pb2.DependencyFailurePolicy.Value(f"DEPENDENCY_FAILURE_POLICY_{on_failure.upper().replace('-', '_')}")
    added = await run.client.tasks.depend(task, on, on_failure=policy, validate_only=dry_run)
    run.out.done(added, f"{added.task} {'would wait' if dry_run else 'waits'} for {added.depends_on}")


@command(app, "undepend")
async def undepend(run: Run, task: Task, on: On) -> None:
    """Let a task wait for another one no longer; executions that wait are looked at again."""
    from google.protobuf.empty_pb2 import Empty

    await run.client.tasks.undepend(task, on)
    run.out.done(Empty(), f"{full('tasks', task)} does not wait for {full('tasks', on)} any more")


@command(app, "deps")
async def deps(
    run: Run,
    task: Task,
    downstream: Annotated[bool, typer.Option("--downstream", "-d", help="What waits for it, instead.")] = False,
    depth: Annotated[int, typer.Option("--depth", min=1, max=50, help="How many steps far.")] = 50,
    limit: Limit = 200,
) -> None:
    """Show what a task waits for, nearest first, and whether it could start now."""
    from stationmaster.v1 import task_pb2

    await show(
        run.out,
        run.client.tasks.dependencies(task, downstream=downstream, max_depth=depth, page_size=min(limit, 1000)),
        task_pb2.ListDependenciesResponse(),
        "dependencies",
        limit=limit,
        columns=("STEPS#", "TASK", "WAITS FOR", "WHICH IS", "IF THAT FAILS"),
        row=_row,
        empty=f"Nothing waits for {task}." if downstream else f"{task} waits for nothing.",
    )
    if not run.out.as_json and not downstream:
        ready = (await run.client.tasks.check(task)).ready
        run.out.note("It could start now." if ready else "It could not start now: an execution would wait.")


def _row(dependency: task_pb2.TaskDependency) -> tuple[str | Text, ...]:
    from rich.text import Text
    from stationmaster.v1 import task_pb2

    state = plain(task_pb2.DependencyState.Name(dependency.state), "DEPENDENCY_STATE")
    policy = plain(task_pb2.DependencyFailurePolicy.Name(dependency.on_failure), "DEPENDENCY_FAILURE_POLICY")
    told = {"block": "it waits on", "skip": "it is cancelled", "run anyway": "it runs"}.get(policy, policy)
    return (
        f"{dependency.depth}",
        last(dependency.task),
        last(dependency.depends_on),
        Text(state, _STYLES.get(state, "")),
        told,
    )
