"""Why a turn is stopped before its answer."""

from __future__ import annotations

from stationmaster_server.identity.excess import QuotaExceeded
from stationmaster_server.sessions.model import Breach, Ending, TurnState


class Stopped(Exception):
    """The turn is to end as `ending` says; with `breach` because of a limit, at which somebody may be asked first."""

    def __init__(self, ending: Ending, breach: Breach | None = None) -> None:
        super().__init__(ending.state)
        self.ending = ending
        self.breach = breach


def limited(breach: Breach) -> Stopped:
    """By a limit of the turn or the session."""
    return Stopped(Ending(TurnState.LIMITED, breach.reason, str(breach)), breach)


def over_quota(exceeded: QuotaExceeded) -> Stopped:
    """By a quota of the user or the organization."""
    breach = Breach(exceeded.quota, exceeded.limit, exceeded.would_be_used)
    return Stopped(Ending(TurnState.LIMITED, exceeded.reason, exceeded.message), breach)
