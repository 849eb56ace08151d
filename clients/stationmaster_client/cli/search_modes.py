"""How to search, as options of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stationmaster.v1 import search_pb2

Meaning = Annotated[bool, typer.Option("--meaning", help="What means about the same as QUERY, whatever its words.")]
Hybrid = Annotated[bool, typer.Option("--hybrid", help="By words and by meaning.")]


def chosen(meaning: bool, hybrid: bool) -> search_pb2.SearchMode.ValueType:
    """The mode; by words unless it is said. Raises BadParameter for both."""
    from stationmaster.v1 import search_pb2

    if meaning and hybrid:
        raise typer.BadParameter("give one of --meaning and --hybrid")
    if hybrid:
        return search_pb2.SEARCH_MODE_HYBRID
    return search_pb2.SEARCH_MODE_MEANING if meaning else search_pb2.SEARCH_MODE_TEXT
