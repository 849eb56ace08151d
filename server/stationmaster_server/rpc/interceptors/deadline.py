"""Refuses what comes too late, and tells the servicer how long it has.

The work itself is stopped by grpc, which cancels the handler at the deadline even when the client is silent; what it
does not do is tell downstream calls: `wire.caller.current_deadline` is for them.
"""

from __future__ import annotations

import time

from stationmaster_server.errors import DeadlineExceeded, Reason
from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.interceptors.base import Before, Interceptor
from stationmaster_server.rpc.method import Method


class Deadlines(Interceptor):
    """Reads the deadline that the caller set, if any."""

    def before(self, method: Method) -> Before:
        """Return what reads it."""
        return _read


def _read(call: Call) -> None:
    remaining: float | None = call.context.time_remaining()  # None without a deadline, whatever the stubs say
    if remaining is None:
        return
    if remaining <= 0:
        raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "the deadline had passed before the call was begun")
    call.deadline = time.monotonic() + remaining
