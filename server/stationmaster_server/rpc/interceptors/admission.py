"""Bounds how many calls are under way, so that too many are refused at once instead of all being slow."""

from __future__ import annotations

from datetime import timedelta

from stationmaster_server.errors import QuotaViolation, Reason, ResourceExhausted
from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.interceptors.base import After, Before, Interceptor
from stationmaster_server.rpc.method import Method

_RETRY_AFTER = timedelta(milliseconds=500)


class _Lane:
    """Calls of one kind under way."""

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        self.open = 0


class Admission(Interceptor):
    """Takes a call if its lane has room."""

    def __init__(self, *, max_calls: int, max_streams: int) -> None:
        self._calls = _Lane("calls", max_calls)
        self._streams = _Lane("streams", max_streams)

    @property
    def calls(self) -> int:
        """Calls with one answer that are under way."""
        return self._calls.open

    @property
    def streams(self) -> int:
        """Streams that are open."""
        return self._streams.open

    def before(self, method: Method) -> Before:
        """Return what takes a place."""
        lane = self._lane(method)

        def take(call: Call) -> None:
            lane.open += 1
            if lane.open > lane.limit:
                raise ResourceExhausted(
                    Reason.SERVER_OVERLOADED,
                    f"the server has as many {lane.what} under way as it takes; come again",
                    QuotaViolation("server", f"{lane.limit} {lane.what} at once"),
                    retry_after=_RETRY_AFTER,
                )

        return take

    def after(self, method: Method) -> After:
        """Return what gives the place back."""
        lane = self._lane(method)

        def give_back(call: Call) -> None:
            lane.open -= 1

        return give_back

    def _lane(self, method: Method) -> _Lane:
        return self._streams if method.streaming else self._calls
