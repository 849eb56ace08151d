"""Files on their way, with a bar at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from stationmaster_client.cli.output import clean

if TYPE_CHECKING:
    from stationmaster_client.cli.output import Output
    from stationmaster_client.stream import Interruption

Tell: TypeAlias = "Callable[[int, int], None]"
"""Told how many bytes of how many have been sent or have come."""


@contextmanager
def bar(out: Output, label: str) -> Iterator[tuple[Tell, Callable[[Interruption], None]]]:
    """What is told of progress, and of interruptions. Nothing is drawn where no person looks."""
    if not out.errors.is_terminal or out.as_json:
        yield lambda done, total: None, lambda interruption: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out.errors, transient=True, expand=True) as progress:
        name = clean(label)
        task = progress.add_task(name, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, description=name)

        def interrupted(interruption: Interruption) -> None:
            progress.update(task, description=f"{name} (waiting for the server)")

        yield tell, interrupted
