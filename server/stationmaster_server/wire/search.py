"""How to search, on the wire."""

from __future__ import annotations

from stationmaster.v1 import search_pb2

from stationmaster_server.embedding.ranking import Mode

_MODE_OF = {search_pb2.SearchMode.Value(f"SEARCH_MODE_{mode}"): mode for mode in Mode}


def mode_of(number: search_pb2.SearchMode.ValueType) -> Mode:
    """How to search; TEXT unless it is said."""
    return _MODE_OF.get(number, Mode.TEXT)
