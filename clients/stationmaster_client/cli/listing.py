"""Prints what list calls find."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence

    from google.protobuf.message import Message
    from rich.text import Text

    from stationmaster_client.cli.output import Output

T = TypeVar("T", bound="Message")


async def show(
    out: Output,
    listing: AsyncIterable[T],
    answer: Message,
    field: str,
    *,
    limit: int,
    columns: Sequence[str],
    row: Callable[[T], Sequence[str | Text]],
    empty: str,
) -> None:
    """Print at most `limit` items: as the list's response message, or as a table."""
    items: list[T] = []
    async for item in listing:
        if len(items) == limit:
            out.note(f"There are more than {limit}: --limit shows more.")
            break
        items.append(item)
    if out.as_json:
        getattr(answer, field).extend(items)
        out.json(answer)
    else:
        out.table(columns, map(row, items), empty=empty)
