"""A turn that a worker has begun."""

from __future__ import annotations

from dataclasses import dataclass

from stationmaster_server.agents.model import Limits
from stationmaster_server.agents.runtime import TurnInput
from stationmaster_server.db.caller import Caller
from stationmaster_server.sessions.model import Session, Turn


@dataclass(frozen=True, slots=True)
class Begun:
    """Whose turn it is, what it starts from, and which limits hold."""

    caller: Caller
    session: Session
    turn: Turn
    input: TurnInput
    limits: Limits
    told: frozenset[str] = frozenset()
    """The MCP servers of which earlier attempts have said what is wrong with them: it is not said again."""
