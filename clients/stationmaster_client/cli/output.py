"""What commands print: protobuf JSON with --json, else tables and colour for people."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


_ID_WIDTH = 12
"""Of the last group of a UUID, which is how ids are shown."""


class Output:
    """Standard output for what was asked for, standard error for everything else."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @cached_property
    def console(self) -> Console:
        """Standard output for people."""
        return self._console(stderr=False)

    @cached_property
    def errors(self) -> Console:
        """Standard error."""
        return self._console(stderr=True)

    def _console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        # With NO_COLOR rich would still make text bold and dim.
        colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
        console = Console(stderr=stderr, markup=False, highlight=False, emoji=False, color_system=colours)
        if not console.is_terminal:
            # Piped into a program, a line stays one line.
            console.width = 400
        return console

    @property
    def notes(self) -> Console:
        """Where notes about the result go: beside it at a terminal, else to standard error."""
        return self.console if self.console.is_terminal and not self.as_json else self.errors

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty() and not self.as_json

    def json(self, message: Message, *, line: bool = False) -> None:
        """Print a message as protobuf JSON: indented, or on one line in a stream."""
        from google.protobuf.json_format import MessageToJson

        text = MessageToJson(
            message,
            indent=None if line else 2,
            ensure_ascii=False,
            always_print_fields_with_no_presence=True,
        )
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def print(self, text: str | Text = "", style: str | None = None) -> None:
        """Print for people."""
        self.console.print(clean(text) if isinstance(text, str) else text, style=style, soft_wrap=True)

    def done(self, message: Message, text: str) -> None:
        """Say that something was done: as the message, or in words."""
        if self.as_json:
            self.json(message)
        else:
            self.print(text)

    def note(self, text: str, style: str = "dim") -> None:
        """Say something that is not the result."""
        self.errors.print(clean(text), style=style, soft_wrap=True)

    def error(self, lines: Iterable[str]) -> None:
        """Say what went wrong."""
        for number, line in enumerate(lines):
            prefix = "error: " if number == 0 else "       "
            self.errors.print(clean(prefix + line), style="bold red" if number == 0 else None, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, empty: str, gap: int = 2) -> None:
        """Print rows under column heads; `empty` when there are none. A column that ends in `#` holds numbers."""
        table = self.grid(columns, rows, gap=gap)
        if table.row_count:
            self.console.print(table)
        else:
            self.note(empty)

    def grid(self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, gap: int = 2) -> Table:
        """The same without printing it, with so much space between columns."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, gap, 0, 0))
        cells = [[clean(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
        # Where it is narrow the others give way first: an id that is cut cannot be copied.
        ids = min(_ID_WIDTH, max((len(row[0]) for row in cells), default=0))
        for place, column in enumerate(columns):
            number = column.endswith("#")
            table.add_column(
                column.removesuffix("#"),
                justify="right" if number else "left",
                no_wrap=number,
                overflow="ellipsis" if place else "fold",
                min_width=None if place else ids,
            )
        for row in cells:
            table.add_row(*row)
        return table

    def details(self, pairs: Iterable[tuple[str, str | Text]]) -> None:
        """Print fields and their values, lines after the first beneath it; empty ones are left out."""
        from rich.table import Table

        rows = [(name, clean(value) if isinstance(value, str) else value) for name, value in pairs if value]
        if not self.console.is_terminal:  # a line stays one line, and ends where it ends
            width = max((len(name) for name, _ in rows), default=0)
            for name, shown in rows:
                lines = f"{shown}".split("\n")
                for place, line in enumerate(lines):
                    self.print(f"{name if place == 0 else '':<{width}}  {line}".rstrip())
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


# What steers a terminal or hides text in it: control characters (but tab and newline) and marks of writing direction.
_STEERING = {
    code: "\N{REPLACEMENT CHARACTER}"
    for codes in (range(0x20), range(0x7F, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A))
    for code in codes
    if chr(code) not in "\t\n"
}


def clean(text: str) -> str:
    """Text of models, tools and users, made safe for a terminal: it can neither move the cursor nor hide itself."""
    return text.replace("\r\n", "\n").translate(_STEERING)


def age(time: Timestamp) -> str:
    """How long ago, roughly."""
    if not time.ByteSize():
        return ""
    seconds = (datetime.now(UTC) - time.ToDatetime(UTC)).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "now" if seconds < 1 else f"{seconds:.0f} s ago"


def moment(time: Timestamp) -> str:
    """Date and time, in this machine's zone."""
    return f"{time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M:%S}" if time.ByteSize() else ""


def dollars(micros: int) -> str:
    """Money, from millionths of a dollar."""
    return f"${micros / 1_000_000:,.4f}" if micros else ""


def size(count: int) -> str:
    """`512 B`, `1.5 KiB`, `3.2 MiB`, `4.0 GiB`."""
    if count < 1024:
        return f"{count} B"
    amount = count / 1024
    for unit in ("KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def plain(enum_name: str, prefix: str) -> str:
    """`active` from `SESSION_STATE_ACTIVE`."""
    return enum_name.removeprefix(prefix + "_").replace("_", " ").lower()
