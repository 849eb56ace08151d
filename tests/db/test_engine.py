"""The two transactions of `Database`: roles, tenants, commits, audit, callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stationmaster_server.db.engine import Database
from stationmaster_server.db.errors import CommitFailed, UnauditedChange, translate
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction, writes
from stationmaster_server.errors import Aborted, DeadlineExceeded, Unavailable

RENAME = "UPDATE organizations SET display_name = $2 WHERE organization_id = $1"
NAME = "SELECT display_name FROM organizations WHERE organization_id = $1"


@pytest_asyncio.fixture
async def single(database_url: str) -> AsyncIterator[Database]:
    """A Database with one connection for tenants, so that everybody has the same one."""
    database = await Database.connect(
        database_url, pool_size=1, system_pool_size=1, connect_timeout=timedelta(seconds=10)
    )
    yield database
    await database.close()


async def name_of(database: Database, tenant: Tenant) -> str:
    async with database.system(autocommit=True) as tx:
        name: str = await tx.fetchval(NAME, tenant.organization_id)
        return name


async def who(tx: Transaction) -> tuple[Any, ...]:
    row = await tx.fetchrow(
        "SELECT current_setting('stationmaster.organization')::uuid, current_setting('stationmaster.user')::uuid"
    )
    assert row is not None
    return tuple(row)


async def test_a_tenant_transaction_runs_as_the_role_that_row_level_security_holds(
    database: Database, tenant: Tenant
) -> None:
    for read in (True, False):
        async with database.tenant(tenant, read=read) as tx:
            assert await tx.fetchval("SELECT current_user") == "stationmaster_app"
            assert await who(tx) == (tenant.organization_id, tenant.user_id)


async def test_a_system_transaction_sees_all_tenants(database: Database, tenant: Tenant) -> None:
    async with database.system() as tx:
        assert await tx.fetchval("SELECT current_user") == "stationmaster_system"
        assert await tx.fetchval(NAME, tenant.organization_id) == "Tests"


async def test_neither_role_can_log_in_bypass_row_level_security_or_make_roles(database: Database) -> None:
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch("SELECT * FROM pg_roles WHERE rolname LIKE 'stationmaster\\_%'")
    assert len(rows) == 2
    for row in rows:
        assert not any(row[f"rol{power}"] for power in ("super", "createrole", "createdb", "canlogin", "bypassrls"))


async def test_a_read_on_a_connection_set_to_the_tenant_is_one_round_trip(single: Database, tenant: Tenant) -> None:
    statements: list[str] = []
    for _ in range(2):
        async with single.tenant(tenant, read=True) as tx:
            await tx.fetchval(NAME, tenant.organization_id)
            tx._connection.add_query_logger(lambda record: statements.append(record.query))
    async with single.tenant(tenant, read=True) as tx:
        statements.clear()
    async with single.tenant(tenant, read=True) as tx:
        assert await tx.fetchval(NAME, tenant.organization_id) == "Tests"
    assert set(statements) == {NAME}


async def test_a_read_cannot_write(database: Database, tenant: Tenant) -> None:
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with database.tenant(tenant, read=True) as tx:
            await tx.execute(RENAME, tenant.organization_id, "written")


async def test_an_unaudited_change_is_rolled_back_and_raised(database: Database, tenant: Tenant) -> None:
    called: list[int] = []

    async def change() -> None:
        async with database.tenant(tenant) as tx:
            tx.after_commit(lambda: called.append(1))
            await tx.execute(RENAME, tenant.organization_id, "unaudited")

    with pytest.raises(UnauditedChange):
        await change()
    assert await name_of(database, tenant) == "Tests"
    assert not called


async def test_an_audited_change_is_committed(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant) as tx:
        await tx.execute(RENAME, tenant.organization_id, "audited")
        tx.audited = True
    assert await name_of(database, tenant) == "audited"


async def test_a_transaction_that_locked_and_changed_nothing_needs_no_audit(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant) as tx:
        await tx.fetchval(NAME + " FOR UPDATE", tenant.organization_id)


async def test_callbacks_run_in_order_and_only_after_the_commit(database: Database, tenant: Tenant) -> None:
    called: list[int] = []
    async with database.tenant(tenant) as tx:
        for number in (1, 2, 3):
            tx.after_commit(partial(called.append, number))
        await tx.fetchval("SELECT 1")
        assert called == []
    assert called == [1, 2, 3]


async def test_callbacks_never_run_after_a_rollback(database: Database, tenant: Tenant) -> None:
    called: list[int] = []

    async def fail() -> None:
        async with database.tenant(tenant) as tx:
            tx.after_commit(lambda: called.append(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert called == []


async def test_a_failing_callback_stops_neither_the_next_one_nor_the_call(
    database: Database, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[int] = []
    async with database.tenant(tenant) as tx:
        tx.after_commit(lambda: called.extend(1 // 0 for _ in "x"))
        tx.after_commit(lambda: called.append(2))
    assert called == [2]
    assert "a callback after a commit failed" in caplog.text


async def test_a_swallowed_error_cannot_pass_for_a_commit(database: Database, tenant: Tenant) -> None:
    called: list[int] = []

    async def swallow() -> None:
        async with database.tenant(tenant) as tx:
            tx.audited = True
            tx.after_commit(lambda: called.append(1))
            with pytest.raises(asyncpg.DivisionByZeroError):
                await tx.fetchval("SELECT 1 / 0")

    with pytest.raises(CommitFailed):
        await swallow()
    assert called == []


async def test_a_transaction_cannot_be_used_after_its_end(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant, read=True) as tx:
        pass
    with pytest.raises(RuntimeError, match="this transaction is over"):
        await tx.fetch("SELECT 1")


async def test_a_cancelled_caller_leaves_a_usable_connection_and_no_lock(single: Database, tenant: Tenant) -> None:
    for read in (True, False):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), single.tenant(tenant, read=read) as tx:
                await tx.fetchval("SELECT pg_sleep(30)")
        async with asyncio.timeout(5), single.tenant(tenant) as tx:
            await tx.execute(RENAME, tenant.organization_id, "after")
            tx.audited = True


async def test_a_caller_cancelled_while_it_commits_still_gets_its_callbacks(database: Database, tenant: Tenant) -> None:
    committed = asyncio.Event()
    leaving = asyncio.Event()

    async def change() -> None:
        async with database.tenant(tenant) as tx:
            await tx.execute(RENAME, tenant.organization_id, "cancelled")
            tx.audited = True
            tx.after_commit(committed.set)
            leaving.set()

    task = asyncio.create_task(change())
    await leaving.wait()  # the task runs on until COMMIT is on its way
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(committed.wait(), 5)
    assert await name_of(database, tenant) == "cancelled"


async def test_whoever_waits_too_long_for_a_connection_is_told(single: Database, tenant: Tenant) -> None:
    single._tenants._wait_limit = 0.05
    async with single.tenant(tenant, read=True) as tx:
        await tx.fetchval("SELECT 1")
        with pytest.raises(Unavailable, match="every database connection is busy"):
            async with single.tenant(tenant, read=True):
                pass


async def test_a_connection_given_to_a_waiter_that_is_cancelled_is_not_lost(single: Database, tenant: Tenant) -> None:
    pool = single._tenants
    connection = pool.take() or await pool.wait()
    waiter = asyncio.create_task(pool.wait())
    await asyncio.sleep(0)
    pool.give(connection)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert pool.take() is connection
    pool.give(connection)


async def test_many_callers_share_few_connections(single: Database, tenant: Tenant) -> None:
    async def read() -> str:
        async with single.tenant(tenant, read=True) as tx:
            name: str = await tx.fetchval(NAME, tenant.organization_id)
            return name

    assert await asyncio.gather(*(read() for _ in range(200))) == ["Tests"] * 200


async def test_a_lost_race_is_aborted_and_a_late_answer_a_passed_deadline(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant) as holder:
        await holder.fetchval(NAME + " FOR UPDATE", tenant.organization_id)
        with pytest.raises(Aborted):
            async with database.tenant(tenant) as tx:
                await tx.fetchval(NAME + " FOR UPDATE NOWAIT", tenant.organization_id)
    async with database.tenant(tenant) as tx:
        await tx.execute("SET LOCAL statement_timeout = '20ms'")
        late = tx.fetchval("SELECT pg_sleep(10)")
        with pytest.raises(asyncpg.QueryCanceledError) as caught:
            await late
        await tx.execute("ROLLBACK AND CHAIN")
    assert isinstance(translate(caught.value), DeadlineExceeded)


async def test_json_columns_are_python_values(database: Database) -> None:
    value = {"a": [1, 2.5, None, True], "ü": "\u2028 <&>"}
    async with database.system(autocommit=True) as tx:
        assert await tx.fetchval("SELECT $1::jsonb", value) == value
        assert await tx.fetchval("SELECT $1::json::text", value) == '{"a":[1,2.5,null,true],"ü":"\u2028 <&>"}'


STEPS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["read", "write", "roll back", "fail", "cancel", "swallow"])),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_a_remembered_tenant_never_leaks_to_the_next_user_of_the_connection(
    single: Database, steps: list[tuple[int, str]]
) -> None:
    tenants = [Tenant(new_id(), new_id()) for _ in range(3)]
    tenants.append(Tenant(tenants[0].organization_id, new_id()))  # a colleague
    for number, ending in steps:
        visit = asyncio.create_task(end_in_some_way(single, tenants[number], ending))
        if ending == "cancel":
            await asyncio.sleep(0)
            visit.cancel()
        (outcome,) = await asyncio.gather(visit, return_exceptions=True)
        assert not isinstance(outcome, AssertionError)
        assert (outcome is None) == (ending in ("read", "write"))


async def end_in_some_way(database: Database, tenant: Tenant, ending: str) -> None:
    async with database.tenant(tenant, read=ending == "read") as tx:
        assert await who(tx) == (tenant.organization_id, tenant.user_id)
        if ending == "roll back":
            raise ZeroDivisionError
        if ending in ("fail", "swallow"):
            try:
                await tx.fetchval("SELECT 1 / 0")
            except asyncpg.DivisionByZeroError:
                if ending == "fail":
                    raise


@pytest.mark.parametrize(
    ("sql", "changes"),
    [
        ("SELECT * FROM sessions WHERE id = $1 FOR UPDATE OF s", False),
        ("SELECT updated_at FROM sessions FOR NO KEY UPDATE", False),
        ("UPDATE sessions SET state = $1", True),
        ("with gone as (delete from messages returning 1) select count(*) from gone", True),
        ("SELECT 1 FROM a FOR UPDATE; INSERT INTO b VALUES (1)", True),
    ],
)
def test_statements_that_change_rows_are_told_from_those_that_lock_them(sql: str, changes: bool) -> None:
    assert writes(sql) is changes
