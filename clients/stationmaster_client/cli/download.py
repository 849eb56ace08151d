"""What is downloaded, as files: whole ones only, and never over another file unless that is wanted."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.output import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from stationmaster.v1 import storage_pb2

    from stationmaster_client import Client

ENDINGS = {"JSON": "json", "MARKDOWN": "md", "HTML": "html", "PDF": "pdf"}
_FORMATS = {ending: name for name, ending in ENDINGS.items()} | {"markdown": "MARKDOWN", "htm": "HTML"}

PATIENCE = timedelta(seconds=30)
"""How long to try to reach a server that went away in the middle of a transfer."""


def format_name(report: storage_pb2.Report) -> str:
    """`pdf`, `markdown` and so on."""
    from stationmaster.v1 import storage_pb2

    return plain(storage_pb2.ReportFormat.Name(report.format), "REPORT_FORMAT")


def format_of(text: str, option: str) -> storage_pb2.ReportFormat.ValueType:
    """A format from its name or from a file's ending. Raises CommandError."""
    from stationmaster.v1 import storage_pb2

    known = _FORMATS.get(text.lower().removeprefix("."))
    if known is None:
        raise CommandError(f"{option}: there is no report as {text!r}; there are: pdf, html, md and json")
    return storage_pb2.ReportFormat.Value(f"REPORT_FORMAT_{known}")


def free(name: str, *, force: bool) -> Path:
    """The file to write. Raises CommandError when it has no folder, or is there already and may not be replaced."""
    target = Path(name)
    if not target.parent.is_dir():
        raise CommandError(f"{target} cannot be written: {os.strerror(errno.ENOENT)}")
    if target.exists() and not force:
        raise CommandError(f"{target} exists already: name another file, or replace it with --force")
    return target


async def save(client: Client, report: storage_pb2.Report, target: Path) -> None:
    """Download a report to a file, which appears when it is whole."""
    with aside(target) as file:
        await copy(client, report, file)


async def copy(client: Client, report: storage_pb2.Report, file: BinaryIO) -> None:
    """Download a report."""
    async with client.reports.download(report.name, patience=PATIENCE) as pieces:
        async for piece in pieces:
            file.write(piece)
    file.flush()


def _mode(target: Path) -> int:
    """That of the file that is replaced, else that of any new file: the one aside is for the user alone."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def aside(target: Path) -> Iterator[BinaryIO]:
    """A file beside the target that takes its place when it is whole, and goes when it is not."""
    from tempfile import NamedTemporaryFile

    try:
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            try:
                yield cast("BinaryIO", file)
            except BaseException:
                Path(file.name).unlink()
                raise
        Path(file.name).chmod(_mode(target))
        Path(file.name).replace(target)
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {error.strerror}") from None
