"""What is prepared before its transaction, and prepared anew when what it was made from has changed meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from stationmaster_server.errors import Aborted, Reason

T = TypeVar("T")

_ATTEMPTS = 5


class ChangedMeanwhile(Exception):
    """Raised inside the transaction, which is rolled back with the request id that it took."""


async def until_unchanged(attempt: Callable[[], Awaitable[T]], name: str) -> T:
    """The first result of `attempt`. Raises Aborted(CONCURRENT_CHANGE) when what is `name`d never stays the same."""
    for _ in range(_ATTEMPTS):
        try:
            return await attempt()
        except ChangedMeanwhile:
            continue
    raise Aborted(Reason.CONCURRENT_CHANGE, f"{name} is changed all the while: try again")
