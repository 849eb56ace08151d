"""Honours the caller's deadline: the work stops when it passes."""

from __future__ import annotations

from stationmaster_server.errors import DeadlineExceeded, Reason
from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.interceptors.base import Before, Interceptor
from stationmaster_server.rpc.method import Method


class Deadlines(Interceptor):
    """Reads what is left of the deadline; the chain runs the servicer under it and tells `wire.caller` about it."""

    def before(self, method: Method) -> Before:
        """Return what reads it."""
        return _read


def _read(call: Call) -> None:
    remaining: float | None = call.context.time_remaining()  # None without a deadline, whatever the stubs say
    if remaining is not None and remaining <= 0:
        raise passed()
    call.remaining = remaining


def passed() -> DeadlineExceeded:
    """The refusal of a call whose time is over."""
    return DeadlineExceeded(
        Reason.DEADLINE_EXCEEDED, "the deadline of the call passed before the work was done; it was stopped"
    )
