"""How connections end, inside this package; `Connections` turns it into errors for callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from pydantic import ValidationError

from stationmaster_server.errors import Reason

_MOST_ERRORS = 10_000


class Ended(Exception):
    """A connection is over. `why` says what was seen; `is_fault`: the server does what no server may."""

    def __init__(self, why: str, *, is_fault: bool = False, reason: Reason = Reason.MCP_SERVER_FAULT) -> None:
        super().__init__(why)
        self.why = why
        self.is_fault = is_fault
        self.reason = reason


class Fault(Exception):
    """An answer that is no MCP, or none at all because the server may not be asked (`reason`)."""

    def __init__(self, why: str, *, reason: Reason = Reason.MCP_SERVER_FAULT) -> None:
        super().__init__(why)
        self.why = why
        self.reason = reason


class Refused(Exception):
    """The server answered a request with an error."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Lost(Exception):
    """The connection ended before a request was answered. `sent`: the server may have begun to execute it."""

    def __init__(self, cause: Ended, *, sent: bool) -> None:
        super().__init__(cause.why)
        self.cause = cause
        self.sent = sent


class Fate:
    """How a connection came to its end; the first cause counts."""

    def __init__(self) -> None:
        self.cause: Ended | None = None
        self.settled = asyncio.Event()
        self.said: Callable[[], str] = str
        """What the server complained about last, where it can be known."""

    def end(self, cause: Ended) -> Ended:
        """Note the cause; the one that counts."""
        if self.cause is None:
            self.cause = cause
            self.settled.set()
        return self.cause

    def with_complaint(self, why: str) -> str:
        """`why`, and what the server said last."""
        said = self.said()
        return f"{why}; it wrote: {said}" if said else why


def what_is_wrong(error: ValidationError, *, skip: int = 0) -> str:
    """The first of the errors and its place, without `skip` parts of that; not the value, which may be a secret."""
    if error.error_count() > _MOST_ERRORS:  # the library makes all of them, or none
        return f"{error.error_count():,} values are wrong"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'][skip:]))}: {first['msg']}"


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in an error, which may be a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def cause_of(error: BaseException) -> Ended:
    """Why a connection ended, from what came out of it."""
    found = list(leaves(error))
    for one in found:
        if isinstance(one, Ended):
            return one
    told = next((one for one in found if not isinstance(one, asyncio.CancelledError)), None)
    return Ended("the connection was closed" if told is None else f"{type(told).__name__}: {told}"[:500])
