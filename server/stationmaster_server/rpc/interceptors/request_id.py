"""Gives every call an id that its answer, its errors, its log lines and its audit events carry."""

from __future__ import annotations

import os
import re
from itertools import count

from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.interceptors.base import Before, Interceptor
from stationmaster_server.rpc.method import Method

KEY = "stationmaster-request-id"
_VALID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


class RequestIds(Interceptor):
    """Takes the caller's `stationmaster-request-id` if it is well formed, else makes one.

    It goes back in the trailing metadata, which travels with the answer; an initial metadata of its own would cost a
    unary call a seventh of its speed. Streams get it at once as well (`Announcement`).
    """

    def __init__(self) -> None:
        self._process = os.urandom(8).hex()
        self._calls = count(1)

    def new(self) -> str:
        """Return an id that no other call has: this process, and the number of the call in it."""
        return f"{self._process}-{next(self._calls):x}"

    def before(self, method: Method) -> Before:
        """Return what names a call."""

        def name(call: Call) -> None:
            given = call.metadata.get(KEY)
            call.request_id = given if isinstance(given, str) and _VALID.fullmatch(given) else self.new()
            call.context.set_trailing_metadata(((KEY, call.request_id),))

        return name


class Announcement(Interceptor):
    """Sends the request id of a stream in the initial metadata, since its trailing metadata may be hours away."""

    def before(self, method: Method) -> Before | None:
        """Return what sends it; None for a method with one answer."""
        return _announce if method.response_streaming else None


async def _announce(call: Call) -> None:
    await call.context.send_initial_metadata(((KEY, call.request_id),))
