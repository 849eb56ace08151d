"""stationmaster reports: what executions of tasks left to be read."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli import resolve
from stationmaster_client.cli.command import Run, command, group
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.listing import show
from stationmaster_client.cli.options import Limit, OrderBy, query
from stationmaster_client.cli.output import age, moment, plain, size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

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
_ENDINGS = {"JSON": "json", "MARKDOWN": "md", "HTML": "html", "PDF": "pdf"}

_PATIENCE = timedelta(seconds=30)
"""How long to try to reach a server that went away in the middle of a download."""

app = group("What executions of tasks left to be read.")


@command(app, "list")
async def list_reports(
    run: Run, condition: Filter = "", execution: Execution = "", order_by: OrderBy = "", limit: Limit = 50
) -> None:
    """List reports, newest first (-f 'format = PDF')."""
    from stationmaster.v1 import storage_pb2

    from stationmaster_client.names import full

    if execution:
        of_it = f'execution = "{full("executions", execution)}"'
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
            ("format", _format(found)),
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
        await _copy(run, found, sys.stdout.buffer)
        return
    target = _target(output or _file_name(found), force=force)
    with _aside(target) as file:
        await _copy(run, found, file)
    if run.out.as_json:
        run.out.json(found)
    else:
        run.out.print(f"{target} ({size(found.size_bytes)})")


@command(app, "open")
async def open_report(run: Run, report: Report) -> None:
    """Download a report to a temporary file and show it with what this machine opens such files with."""
    from tempfile import mkdtemp

    found = await run.client.reports.get(await resolve.report(run.client, report))
    target = Path(mkdtemp(prefix="stationmaster-")) / _file_name(found)
    with target.open("wb") as file:
        await _copy(run, found, file)
    run.out.print(str(target))
    typer.launch(str(target))


def _target(name: str, *, force: bool) -> Path:
    target = Path(name)
    if target.exists() and not force:
        raise CommandError(f"{target} exists already: name another file with -o, or replace it with --force")
    return target


async def _copy(run: Run, report: storage_pb2.Report, file: IO[bytes]) -> None:
    async with run.client.reports.download(report.name, patience=_PATIENCE) as pieces:
        async for piece in pieces:
            file.write(piece)
    file.flush()


@contextmanager
def _aside(target: Path) -> Iterator[IO[bytes]]:
    """A file beside the target that takes its place when it is whole, and goes when it is not."""
    from tempfile import NamedTemporaryFile

    try:
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            try:
                yield file
            except BaseException:
                Path(file.name).unlink()
                raise
        Path(file.name).replace(target)
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {error.strerror}") from None


def _file_name(report: storage_pb2.Report) -> str:
    """A name from the title that every system takes: `winter-timetable.pdf`."""
    words = re.findall(r"\w+", report.title.lower())
    return f"{'-'.join(words)[:60].rstrip('-') or 'report'}.{_ENDINGS.get(_format(report).upper(), 'bin')}"


def _format(report: storage_pb2.Report) -> str:
    from stationmaster.v1 import storage_pb2

    return plain(storage_pb2.ReportFormat.Name(report.format), "REPORT_FORMAT")


def _row(report: storage_pb2.Report) -> tuple[str, ...]:
    return (
        resolve.short(report.name),
        _format(report),
        size(report.size_bytes),
        age(report.create_time),
        resolve.brief(report.execution),
        report.title,
    )
