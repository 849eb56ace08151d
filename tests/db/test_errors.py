"""The table of driver errors, and that every SQLSTATE class of the driver has a place in or outside it on purpose."""

from __future__ import annotations

import asyncpg
import pytest
from stationmaster_server.db.errors import translate
from stationmaster_server.errors import Aborted, DeadlineExceeded, StationmasterError, Unavailable

TABLE: list[tuple[BaseException, type[StationmasterError]]] = [
    (asyncpg.ConnectionDoesNotExistError("gone"), Unavailable),
    (asyncpg.ConnectionFailureError("lost"), Unavailable),
    (asyncpg.CannotConnectNowError("starting"), Unavailable),
    (asyncpg.AdminShutdownError("stopping"), Unavailable),
    (asyncpg.CrashShutdownError("crashed"), Unavailable),
    (asyncpg.TooManyConnectionsError("full"), Unavailable),
    (asyncpg.DiskFullError("full"), Unavailable),
    (asyncpg.OutOfMemoryError("full"), Unavailable),
    (asyncpg.IdleInTransactionSessionTimeoutError("idle"), Unavailable),
    (asyncpg.ReadOnlySQLTransactionError("a standby"), Unavailable),
    (asyncpg.InvalidCachedStatementError("schema"), Unavailable),
    (ConnectionResetError(), Unavailable),
    (asyncpg.SerializationError("raced"), Aborted),
    (asyncpg.DeadlockDetectedError("raced"), Aborted),
    (asyncpg.LockNotAvailableError("raced"), Aborted),
    (asyncpg.QueryCanceledError("late"), DeadlineExceeded),
    (TimeoutError(), DeadlineExceeded),
]

OURS_TO_HANDLE = [
    asyncpg.UniqueViolationError("twice"),
    asyncpg.ForeignKeyViolationError("none"),
    asyncpg.CheckViolationError("bad"),
    asyncpg.InsufficientPrivilegeError("row-level security"),
    asyncpg.UndefinedTableError("typo"),
    asyncpg.DataError("bad argument"),
    asyncpg.InterfaceError("another operation is in progress"),
    ValueError("bug"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize(("error", "expected"), TABLE, ids=lambda value: type(value).__name__)
def test_what_every_caller_may_meet_is_translated(error: BaseException, expected: type[StationmasterError]) -> None:
    assert isinstance(translate(error), expected)


@pytest.mark.parametrize("error", OURS_TO_HANDLE, ids=lambda value: type(value).__name__)
def test_what_is_a_bug_or_expected_by_its_store_is_left_alone(error: BaseException) -> None:
    assert translate(error) is None


def test_using_a_closed_connection_is_an_outage_and_misusing_an_open_one_a_bug() -> None:
    assert isinstance(translate(asyncpg.InterfaceError("closed"), connection_closed=True), Unavailable)
    assert translate(asyncpg.InterfaceError("busy"), connection_closed=False) is None


def test_an_outage_says_when_to_come_again_and_nothing_of_the_database() -> None:
    error = translate(asyncpg.AdminShutdownError("terminating connection of secret-host"))
    assert isinstance(error, Unavailable)
    assert error.retry_after.total_seconds() > 0
    assert "secret" not in error.message
