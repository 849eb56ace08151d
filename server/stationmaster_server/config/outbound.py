"""Settings of what the server fetches on a user's word."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from stationmaster_server.config.allowed import parse_allowed
from stationmaster_server.config.types import Group


def _is_an_entry(entry: str) -> str:
    parse_allowed(entry)
    return entry


class OutboundSettings(Group):
    """What the server fetches on a user's word, such as MCP servers over HTTP: public addresses only."""

    allow: tuple[Annotated[str, AfterValidator(_is_an_entry)], ...] = ()
    """Hosts that may be reached although their addresses are private, loopback or otherwise not public: host names,
    `*.suffix`, addresses, networks, each perhaps with `:port`. Allowing a name allows whatever it resolves to.
    """
