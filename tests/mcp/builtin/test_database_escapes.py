"""The MCP server `database`: ways out that lead nowhere."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from mcp.server.mcpserver import MCPServer
from stationmaster_server.db.embedded.cluster import Cluster
from stationmaster_server.db.embedded.server import Membership
from stationmaster_server.mcp.builtin.database import make_server
from stationmaster_server.mcp.builtin.database_store import ReadOnlyDatabase

from tests.mcp.builtin.calling import answer, call, refusal
from tests.mcp.builtin.reader import Shop, open_shop
from tests.waiting import until

READ_ONLY = "25006"


@pytest_asyncio.fixture
async def shop(postgres: Cluster) -> AsyncIterator[Shop]:
    async with open_shop(postgres) as shop:
        yield shop


@pytest.fixture
def server(shop: Shop) -> MCPServer:
    return make_server(ReadOnlyDatabase(shop.settings()))


async def contents(shop: Shop) -> list[Any]:
    """Everything that a query could have changed."""
    return [
        await shop.owner.fetch("SELECT * FROM orders ORDER BY id"),
        await shop.owner.fetch("SELECT last_value, is_called FROM numbers"),
        await shop.owner.fetch("SELECT oid::regclass::text FROM pg_class ORDER BY oid"),
        await shop.owner.fetch("SELECT oid FROM pg_proc ORDER BY oid"),
        await shop.owner.fetch("SELECT oid FROM pg_largeobject_metadata"),
        await shop.owner.fetch("SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting"),
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO orders (id, customer) VALUES (100, 'x') RETURNING id",
        "UPDATE orders SET total = 0 RETURNING id",
        "DELETE FROM orders RETURNING id",
        "WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone",
        "MERGE INTO orders o USING lines l ON o.id = l.order_id WHEN MATCHED THEN DELETE RETURNING o.id",
        "TRUNCATE orders",
        "SELECT * INTO copied FROM orders",
        "CREATE TABLE mine (id int)",
        "CREATE TEMP TABLE mine AS SELECT 1",
        "SELECT * FROM orders FOR UPDATE",
        "LOCK TABLE orders",
        "VACUUM orders",
        "EXPLAIN ANALYZE DELETE FROM orders",
        "COPY orders TO STDOUT",
        "COPY (SELECT 1) TO PROGRAM 'touch /var/tmp/out'",
        "COPY orders FROM PROGRAM 'id'",
        "DO $$ BEGIN DELETE FROM orders; END $$",
        "CALL something()",
        "NOTIFY somebody",
        "LISTEN somebody",
        "PREPARE p AS DELETE FROM orders",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "ALTER ROLE CURRENT_USER SET default_transaction_read_only = off",
        "LOAD 'plpgsql'",
        "SET TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
        "SET statement_timeout = 0",
        "SET ROLE NONE",
        "RESET ROLE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "RESET ALL",
        "DISCARD ALL",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "COMMIT AND CHAIN",
        "SAVEPOINT s",
        "SHOW ALL",
        "; DELETE FROM orders",
    ],
)
async def test_statement_that_is_no_query_is_refused_and_changes_nothing(
    shop: Shop, server: MCPServer, sql: str
) -> None:
    before = await contents(shop)
    assert await refusal(server, "query", sql=sql)
    assert await contents(shop) == before


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT; DELETE FROM orders",
        "SELECT 1; DELETE FROM orders",
        "SELECT 1; SET TRANSACTION READ WRITE; DELETE FROM orders",
        "SELECT 1) AS q(c0); DELETE FROM orders; SELECT 1 FROM (SELECT 2",
        "SELECT 1) AS q(c0), LATERAL (SELECT 2",
        "SELECT 1 /*",
        "SELECT 1 --\n; DELETE FROM orders --",
    ],
)
async def test_second_statement_is_refused_and_changes_nothing(shop: Shop, server: MCPServer, sql: str) -> None:
    before = await contents(shop)
    assert "PostgreSQL answers 42" in await refusal(server, "query", sql=sql)
    assert await contents(shop) == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT next_number()",
        "SELECT nextval('numbers')",
        "SELECT setval('numbers', 1000)",
        "SELECT forget_order(1)",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_put(1, 0, 'x')",
        "SELECT lo_unlink(1)",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_export(1, '/var/tmp/out')",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT pg_ls_dir('.')",
        "SELECT pg_reload_conf()",
        "SELECT pg_switch_wal()",
        "SELECT query_to_xml('DELETE FROM orders', true, true, '')",
        "SELECT query_to_xml('COPY (SELECT 1) TO PROGRAM ''touch /var/tmp/out''', true, true, '')",
    ],
)
async def test_function_with_a_side_effect_is_refused_and_changes_nothing(
    shop: Shop, server: MCPServer, sql: str
) -> None:
    await shop.owner.execute(f"GRANT SELECT ON numbers TO {shop.reader}")
    before = await contents(shop)
    assert "PostgreSQL answers" in await refusal(server, "query", sql=sql)
    assert await contents(shop) == before


async def test_writing_function_is_refused_even_when_it_runs_with_its_owners_rights(
    shop: Shop, server: MCPServer
) -> None:
    await shop.owner.execute(
        "ALTER FUNCTION forget_order SECURITY DEFINER; ALTER FUNCTION next_number SECURITY DEFINER"
    )
    before = await contents(shop)
    for sql in ("SELECT forget_order(1)", "SELECT next_number()"):
        assert READ_ONLY in await refusal(server, "query", sql=sql)
    assert await contents(shop) == before


@pytest.mark.parametrize("setting", ["transaction_read_only", "default_transaction_read_only"])
async def test_set_config_does_not_open_the_transaction_for_writing(
    shop: Shop, server: MCPServer, setting: str
) -> None:
    await shop.owner.execute("ALTER FUNCTION forget_order SECURITY DEFINER")
    before = await contents(shop)
    sql = f"SELECT set_config('{setting}', 'off', false), forget_order(id) FROM orders"
    assert "PostgreSQL answers" in await refusal(server, "query", sql=sql)
    assert await contents(shop) == before


async def test_what_a_query_sets_is_gone_with_it(server: MCPServer) -> None:
    await answer(server, "query", sql="SELECT set_config('default_transaction_read_only', 'off', false)")
    await answer(server, "query", sql="SELECT set_config('search_path', 'nowhere', false)")
    sql = "SELECT current_setting('default_transaction_read_only'), current_setting('search_path')"
    assert (await answer(server, "query", sql=sql))["rows"] == [["on", '"$user", public']]


async def test_role_is_taken_before_each_query_and_leaving_it_gains_and_outlives_nothing(shop: Shop) -> None:
    role = f"role_{uuid4().hex}"
    await shop.owner.execute(f"CREATE ROLE {role}; GRANT {role} TO {shop.reader}; GRANT SELECT ON orders TO {role}")
    try:
        server = make_server(ReadOnlyDatabase(shop.settings(role=role)))
        current = "SELECT current_user, session_user"
        assert (await answer(server, "query", sql=current))["rows"] == [[role, shop.reader]]
        before = await contents(shop)
        left = "SELECT set_config('role', 'none', false), query_to_xml('DELETE FROM orders', true, true, '')"
        assert "PostgreSQL answers" in await refusal(server, "query", sql=left)
        assert await contents(shop) == before
        await answer(server, "query", sql="SELECT set_config('role', 'none', false)")
        assert (await answer(server, "query", sql=current))["rows"] == [[role, shop.reader]]
    finally:
        await shop.owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_role_does_not_excuse_a_login_that_can_write(shop: Shop) -> None:
    """Since a query can leave the role again."""
    role = f"role_{uuid4().hex}"
    await shop.owner.execute(f"CREATE ROLE {role}; GRANT {role} TO {shop.reader}; GRANT SELECT ON orders TO {role}")
    await shop.owner.execute(f"GRANT DELETE ON orders TO {shop.reader}")
    try:
        server = make_server(ReadOnlyDatabase(shop.settings(role=role)))
        assert "has DELETE on public.orders" in await refusal(server, "query", sql="SELECT 1")
    finally:
        await shop.owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_login_that_may_become_a_superuser_is_refused(shop: Shop) -> None:
    await shop.owner.execute(f"GRANT postgres TO {shop.reader} WITH INHERIT FALSE")
    server = make_server(ReadOnlyDatabase(shop.settings()))
    assert "can act as postgres" in await refusal(server, "query", sql="SELECT 1")


async def test_role_that_the_login_may_not_take_is_refused(shop: Shop) -> None:
    server = make_server(ReadOnlyDatabase(shop.settings(role='stationmaster"; SELECT 1; --')))
    assert "PostgreSQL answers 22023" in await refusal(server, "query", sql="SELECT 1")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_sleep(600)",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(600)",
        "SELECT set_config('statement_timeout', '0', false), CASE WHEN n > 10 THEN pg_sleep(600) END FROM numbered",
        "SELECT count(*) FROM generate_series(1, 100000000000) a",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT 1 FROM r) SELECT count(*) FROM r",
    ],
)
async def test_query_past_the_time_limit_is_ended_on_the_server_too(shop: Shop, sql: str) -> None:
    await shop.owner.execute("CREATE VIEW numbered AS SELECT generate_series(1, 100) AS n")
    await shop.owner.execute(f"GRANT SELECT ON numbered TO {shop.reader}")
    server = make_server(ReadOnlyDatabase(shop.settings(query_timeout="300ms")))
    assert "took longer than 0.3 s" in await refusal(server, "query", sql=sql)
    await until(lambda: _nobody(shop))


async def test_query_that_cannot_be_cancelled_is_ended_on_the_server_too(shop: Shop) -> None:
    await shop.owner.execute(
        """CREATE FUNCTION stubborn() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
           PERFORM set_config('transaction_timeout', '0', true);
           LOOP BEGIN PERFORM pg_sleep(0.01); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$"""
    )
    server = make_server(ReadOnlyDatabase(shop.settings(query_timeout="300ms")))
    await refusal(server, "query", sql="SELECT stubborn()")
    await until(lambda: _nobody(shop))


async def test_query_whose_caller_gave_up_is_ended_on_the_server_too(shop: Shop, server: MCPServer) -> None:
    calling = asyncio.create_task(call(server, "query", sql="SELECT pg_sleep(600)"))
    await until(lambda: _somebody(shop))
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await until(lambda: _nobody(shop))


async def test_waiting_for_a_lock_is_limited(shop: Shop) -> None:
    server = make_server(ReadOnlyDatabase(shop.settings(query_timeout="300ms")))
    async with shop.owner.transaction():
        await shop.owner.execute("LOCK TABLE orders")
        assert await refusal(server, "query", sql="SELECT * FROM orders")


async def test_advisory_lock_is_not_held_after_the_query(shop: Shop, server: MCPServer) -> None:
    await answer(server, "query", sql="SELECT pg_advisory_lock(42), pg_try_advisory_lock(43)")
    await until(lambda: shop.owner.fetchval("SELECT pg_try_advisory_lock(42) AND pg_try_advisory_lock(43)"))


async def test_notification_of_a_query_is_never_sent(shop: Shop, server: MCPServer) -> None:
    heard: list[object] = []
    await shop.owner.add_listener("somebody", lambda *notification: heard.append(notification[-1]))
    await answer(server, "query", sql="SELECT pg_notify('somebody', 'from a query')")
    await shop.owner.execute("NOTIFY somebody, 'ours'")
    await until(lambda: _heard(heard))
    assert heard == ["ours"]


async def test_query_cannot_end_or_cancel_anybody_elses(shop: Shop, server: MCPServer) -> None:
    other = await asyncpg.connect(shop.url())  # the same login, as another tenant's query has
    try:
        for function in ("pg_terminate_backend", "pg_cancel_backend"):
            for victim in (other, shop.owner):
                told = await refusal(
                    server, "query", sql=f"SELECT {function}($1)", parameters=[victim.get_server_pid()]
                )
                assert "42501" in told
                assert await victim.fetchval("SELECT 1") == 1
    finally:
        await other.close()


async def test_no_more_queries_run_at_once_than_configured(shop: Shop) -> None:
    server = make_server(ReadOnlyDatabase(shop.settings(max_connections=1, query_timeout="1s")))
    held = asyncio.create_task(call(server, "query", sql="SELECT pg_sleep(600)"))
    await until(lambda: _somebody(shop))
    active = "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND state = 'active'"
    assert (await answer(server, "query", sql=active))["rows"] == [[1]]
    assert (await held).is_error


async def test_login_that_could_write_messages_for_logical_replication_is_refused() -> None:
    """They go out even if the transaction that wrote them only reads, and is rolled back."""
    folder = Path(tempfile.mkdtemp(prefix="stationmaster-logical-"))
    try:
        member = Membership.join(folder, settings={"fsync": "off", "wal_level": "logical"}, minimum_free_bytes=0)
        try:
            async with open_shop(member.cluster) as shop:
                server = make_server(ReadOnlyDatabase(shop.settings()))
                emit = "SELECT pg_logical_emit_message(false, 'x', 'y')"
                assert "may run pg_logical_emit_message" in await refusal(server, "query", sql=emit)
        finally:
            member.leave()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _nobody(shop: Shop) -> bool:
    return not await _somebody(shop)


async def _somebody(shop: Shop) -> bool:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active'"
    return bool(await shop.owner.fetchval(sql, shop.reader))


async def _heard(heard: list[object]) -> bool:
    return bool(heard)
