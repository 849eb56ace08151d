"""Options that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stationmaster_client.paging import Query

Filter = Annotated[
    str, typer.Option("--filter", "-f", metavar="EXPRESSION", help="For example 'state = ACTIVE' (AIP-160).")
]
OrderBy = Annotated[str, typer.Option("--order-by", metavar="FIELD", help="For example 'create_time desc'.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most so many.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

SESSION_HELP = "Id or name; the end of an id is enough, - is the session last used."
Session = Annotated[str, typer.Argument(help=SESSION_HELP, metavar="SESSION")]


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
