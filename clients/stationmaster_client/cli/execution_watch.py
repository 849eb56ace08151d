"""Follows an execution to its end, over restarts of the server, and fetches its reports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run
from stationmaster_client.cli.download import format_of, free, save
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.execution_view import ExecutionView
from stationmaster_client.cli.executions_shown import ending, result_lines, state_of

if TYPE_CHECKING:
    from stationmaster.v1 import storage_pb2, task_pb2

_PATIENCE = timedelta(minutes=15)
"""How long a server may stay away."""
_REPORT_LIMIT_SECONDS = 300.0
_LOOK_EVERY_SECONDS = 0.5

Targets = Mapping[Path, "storage_pb2.ReportFormat.ValueType"]


def report_targets(names: list[str], *, force: bool) -> Targets:
    """The files to write, each with the format that its ending asks for. Raises CommandError."""
    return {free(name, force=force): format_of(Path(name).suffix, f"--report {name}") for name in names}


def require_asked(execution: task_pb2.Execution, targets: Targets) -> None:
    """Raise CommandError for a file whose report the execution was not asked for."""
    for target, wanted in targets.items():
        if wanted not in execution.report_formats:
            raise CommandError(
                f"{execution.name} makes no report for {target}: it was not asked for one", ExitCode.CONFLICT
            )


async def follow(run: Run, name: str, after: int = 0, reports: Targets | None = None) -> None:
    """Show an execution to its end, then fetch its reports. Ends the command with the execution's exit code."""
    try:
        execution, view = await _watch(run, name, after)
        _tell(run, execution, view)
        for target, wanted in (reports or {}).items():
            await _fetch(run, execution, target, wanted)
    except asyncio.CancelledError:
        short = resolve.short(name)
        run.out.note(f"It goes on. Watch it again: stationmaster executions watch {short}")
        run.out.note(f"                  End it: stationmaster executions cancel {short}")
        raise
    code = exit_code(execution)
    if code:
        raise typer.Exit(code)


def exit_code(execution: task_pb2.Execution) -> ExitCode:
    """What a command ends with that has followed it."""
    codes = {"succeeded": ExitCode.OK, "cancelled": ExitCode.CANCELLED}
    return codes.get(state_of(execution), ExitCode.UNEXPECTED)


async def _watch(run: Run, name: str, after: int) -> tuple[task_pb2.Execution, ExecutionView]:
    """The execution as it ended, and what was shown of it."""
    from stationmaster_client.executions import ENDED

    with ExecutionView(run.out) as view:
        while True:
            stream = run.client.executions.watch(name, after, patience=_PATIENCE, on_interruption=view.interrupted)
            async with stream as events:
                async for event in events:
                    after = event.sequence
                    if run.out.as_json:
                        view.connected()
                        run.out.json(event, line=True)
                    else:
                        view.show(event)
            execution = await run.client.executions.get(name)
            if execution.state in ENDED:
                return execution, view


def _tell(run: Run, execution: task_pb2.Execution, view: ExecutionView) -> None:
    if run.out.as_json:
        run.out.json(execution, line=True)
        return
    text, style = ending(execution, view.counters)
    run.out.notes.print(text, style=style, soft_wrap=True)
    if execution.HasField("result"):
        result_lines(run.out, execution, view.said)


async def _fetch(
    run: Run, execution: task_pb2.Execution, target: Path, wanted: storage_pb2.ReportFormat.ValueType
) -> None:
    require_asked(execution, {target: wanted})
    report = await _made(run, execution, wanted)
    await save(run.client, report, target)
    run.out.note(f"report: {target}")


async def _made(
    run: Run, execution: task_pb2.Execution, wanted: storage_pb2.ReportFormat.ValueType
) -> storage_pb2.Report:
    """The report, once it is made."""
    condition = f'execution = "{execution.name}"'
    with run.out.errors.status("the report is being made"):
        give_up = asyncio.get_running_loop().time() + _REPORT_LIMIT_SECONDS
        while asyncio.get_running_loop().time() < give_up:
            async for report in run.client.reports.list(filter=condition):
                if report.format == wanted:
                    return report
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
    raise CommandError(
        f"no report was made within {_REPORT_LIMIT_SECONDS:.0f} s; look again later: "
        f"stationmaster reports list -e {execution.name}",
        ExitCode.DEADLINE,
    )
