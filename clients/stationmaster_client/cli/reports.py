"""stationmaster reports: what executions of tasks left to be read."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.download import ENDINGS, copy, format_name, free, save
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit, OrderBy, query
from stationmaster_client.cli.output import age, moment, size

if TYPE_CHECKING:
    from stationmaster.v1 import storage_pb2

Filter = Annotated[
    str, typer.Option("--filter", "-f", metavar="EXPRESSION", help="For example 'format = PDF' (AIP-160).")
]
Report = Annotated[
    str, typer.Argument(help="Id or name; the end of an id is enough, - is the newest report.", metavar="REPORT")
]
Execution = Annotated[
    str, typer.Option("--execution", "-e", metavar="EXECUTION", help="Only those of this execution, by name or id.")
]
Target = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="FILE", help="The file to write; - is standard output. Default: after the title."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")]
app = group("What executions of tasks left to be read.")


@command(app, "list")
async def list_reports(
    run: Run, condition: Filter = "", execution: Execution = "", order_by: OrderBy = "", limit: Limit = 50
) -> None:
    """List reports, newest first (-f 'format = PDF')."""
    from stationmaster.v1 import storage_pb2

    if execution:
        of_it = f'execution = "{await resolve.execution(run.client, execution)}"'
        condition = f"{of_it} AND ({condition})" if condition else of_it
    await show(
        run.out,
        run.client.reports.list(**query(condition, order_by, limit)),
        storage_pb2.ListReportsResponse(),
        "reports",
        limit=limit,
        columns=("REPORT", "FORMAT", "SIZE#", "MADE", "EXECUTION", "TITLE"),
        row=_row,
        empty="No reports.",
    )


@command(app, "show")
async def show_report(run: Run, report: Report) -> None:
    """Show what is known of a report."""
    found = await run.client.reports.get(await resolve.report(run.client, report))
    if run.out.as_json:
        run.out.json(found)
        return
    run.out.details(
        [
            ("report", found.name),
            ("title", found.title),
            ("format", format_name(found)),
            ("media type", found.media_type),
            ("size", size(found.size_bytes)),
            ("sha256", found.sha256),
            ("execution", found.execution),
            ("owner", found.owner),
            ("made", moment(found.create_time)),
        ]
    )


@command(app, "get")
async def get(run: Run, report: Report, output: Target = "", force: Force = False) -> None:
    """Download a report to a file, or to standard output with -o -."""
    found = await run.client.reports.get(await resolve.report(run.client, report))
    if output == "-":
        await copy(run.client, found, sys.stdout.buffer)
        return
    target = free(output or _file_name(found), force=force)
    await save(run.client, found, target)
    run.out.done(found, f"{target} ({size(found.size_bytes)})")


@command(app, "open")
async def open_report(run: Run, report: Report) -> None:
    """Download a report to a temporary file and show it with what this machine opens such files with."""
    from tempfile import mkdtemp

    found = await run.client.reports.get(await resolve.report(run.client, report))
    target = Path(mkdtemp(prefix="stationmaster-")) / _file_name(found)
    with target.open("wb") as file:
        await copy(run.client, found, file)
    run.out.print(str(target))
    typer.launch(str(target))


def _file_name(report: storage_pb2.Report) -> str:
    """A name from the title that every system takes: `winter-timetable.pdf`."""
    words = re.findall(r"\w+", report.title.lower())
    return f"{'-'.join(words)[:60].rstrip('-') or 'report'}.{ENDINGS.get(format_name(report).upper(), 'bin')}"


def _row(report: storage_pb2.Report) -> tuple[str, ...]:
    return (
        resolve.short(report.name),
        format_name(report),
        size(report.size_bytes),
        age(report.create_time),
        resolve.brief(report.execution),
        report.title,
    )
