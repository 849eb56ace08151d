"""Options that several commands have."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.errors import CommandError

if TYPE_CHECKING:
    from stationmaster_client.paging import Query

_FILTER_HELP = "Such as 'create_time > \"2026-01-31T00:00:00Z\"' (AIP-160); a wrong field is told which there are."
Filter = Annotated[str, typer.Option("--filter", "-f", metavar="EXPRESSION", help=_FILTER_HELP)]
OrderBy = Annotated[str, typer.Option("--order-by", metavar="FIELD", help="For example 'create_time desc'.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most so many.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

SESSION_HELP = "Id or name; the end of an id is enough, - is the session last used."
Session = Annotated[str, typer.Argument(help=SESSION_HELP, metavar="SESSION")]


def piped() -> str:
    """All of standard input, a text."""
    return _text(sys.stdin.buffer.read(), "standard input")


def text_of(file: Path) -> str:
    """All of a file, a text."""
    try:
        return _text(file.read_bytes(), str(file))
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from None


def require_text(values: Iterable[object]) -> None:
    """Raises CommandError for an argument of a command that holds what is no text: the system passes any bytes."""
    for value in values:
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, str) and any("\ud800" <= character <= "\udfff" for character in part):
                raise CommandError(f"{part!r} is no UTF-8 text")


def _text(read: bytes, where: str) -> str:
    try:
        return read.decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"{where} holds what is no UTF-8 text, at byte {error.start}") from None


def query(condition: str, order_by: str, limit: int) -> Query:
    """The arguments of a list call that shows at most `limit` items."""
    return {"filter": condition, "order_by": order_by, "page_size": min(limit, 1000)}


def pairs(texts: list[str], option: str) -> dict[str, str]:
    """`key=value` texts as a dictionary."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not key=value", param_hint=option)
        found[key] = value
    return found
