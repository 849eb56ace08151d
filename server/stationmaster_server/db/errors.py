"""Driver errors become ours here and nowhere else: by SQLSTATE and class, never by text."""

from __future__ import annotations

from datetime import timedelta

import asyncpg

from stationmaster_server.errors import (
    Aborted,
    DeadlineExceeded,
    InvalidArgument,
    Reason,
    StationmasterError,
    Unavailable,
)

RETRY_AFTER = timedelta(seconds=1)

# SQLSTATE, or its class of two characters.
_AWAY = frozenset(
    {
        "08",  # connection exceptions
        "53",  # insufficient resources: disk full, out of memory, too many connections
        "58",  # system errors outside PostgreSQL
        "57P01",  # admin shutdown
        "57P02",  # crash shutdown
        "57P03",  # cannot connect now: starting, stopping, in recovery
        "57P05",  # idle session timeout
        "25006",  # read-only transaction: a standby, met while the database fails over
        "25P03",  # idle in transaction session timeout
    }
)
_CONFLICT = frozenset({"40001", "40P01", "55P03"})  # serialization failure, deadlock, lock not available
_NOT_TEXT = frozenset({"22021", "22P05"})  # NUL, half a surrogate pair: what PostgreSQL cannot store as text
_TOO_LATE = frozenset({"57014", "25P04"})  # query cancelled (statement timeout), transaction timeout


class UnauditedChange(RuntimeError):
    """A tenant transaction changed something and told the audit trail nothing: a bug; it was rolled back."""


class CommitFailed(RuntimeError):
    """COMMIT answered ROLLBACK: a statement had failed and the error was swallowed inside the transaction: a bug."""


class NotMigrated(Exception):
    """The database lacks what the migrations make; the message says what to run."""


def unavailable(message: str = "the database is unavailable; try again shortly") -> Unavailable:
    """The refusal of a call that met an outage."""
    return Unavailable(Reason.DATABASE_UNAVAILABLE, message, retry_after=RETRY_AFTER)


def translate(error: BaseException, *, connection_closed: bool = False) -> StationmasterError | None:
    """Our error for one of the driver, or None when it is none of those that every caller may meet.

    Unique and other constraint violations are not in the table: who expects one asks for its `constraint_name`.
    """
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return unavailable("the schema changed during the call; try again")
    if isinstance(error, asyncpg.PostgresError):
        return _by_sqlstate(error.sqlstate or "")
    if isinstance(error, ConnectionError) or (
        connection_closed and isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError)
    ):
        return unavailable()
    if isinstance(error, TimeoutError):
        return DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "the database did not answer within the time limit")
    return None


def _by_sqlstate(sqlstate: str) -> StationmasterError | None:
    if sqlstate in _AWAY or sqlstate[:2] in _AWAY:
        return unavailable()
    if sqlstate in _CONFLICT:
        return Aborted(Reason.CONCURRENT_CHANGE, "somebody else changed the same rows; read again and retry")
    if sqlstate in _NOT_TEXT:
        return InvalidArgument(Reason.INVALID_FIELD, "a text field holds a character that cannot be stored (NUL)")
    if sqlstate in _TOO_LATE:
        return DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "the database did not finish within the time limit")
    return None
