"""What an interceptor is: up to four small functions for each method, made once when the method is registered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from google.protobuf.message import Message

from stationmaster_server.errors import StationmasterError
from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.method import Method

Before = Callable[[Call], Awaitable[None] | None]
"""Runs before the request is read, in the order of the chain; raises to refuse. Awaited if it returns an awaitable."""
Each = Callable[[Message], None]
"""Runs on every request message; raises to refuse."""
Failed = Callable[[Call, StationmasterError], Awaitable[None] | None]
"""Runs when the call was refused, before its caller hears of it; raises to answer with another error."""
After = Callable[[Call], None]
"""Runs when the call has ended, however it did, in the reverse order, if `Before` had begun; must not raise."""


class Interceptor:
    """An interceptor that does nothing; others override what they need. None means: nothing to do for this method."""

    def before(self, method: Method) -> Before | None:
        """Return what runs before the request is read."""
        return None

    def each(self, method: Method) -> Each | None:
        """Return what runs on each request message."""
        return None

    def failed(self, method: Method) -> Failed | None:
        """Return what runs when the call was refused."""
        return None

    def after(self, method: Method) -> After | None:
        """Return what runs when the call has ended. It needs a `before` to go with."""
        return None
