"""The MCP server `database`: what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from mcp import Client
from pydantic import ValidationError
from stationmaster_server.config.mcp_builtin import McpDatabaseSettings
from stationmaster_server.db.embedded.cluster import SUPERUSER, Cluster
from stationmaster_server.mcp.builtin.database import make_server
from stationmaster_server.mcp.builtin.database_rows import MAX_BYTES, MAX_CELL
from stationmaster_server.mcp.builtin.database_store import ReadOnlyDatabase

from tests.mcp.builtin.calling import answer, call, refusal, text_of
from tests.mcp.builtin.reader import Shop, open_shop


@pytest_asyncio.fixture
async def shop(postgres: Cluster) -> AsyncIterator[Shop]:
    async with open_shop(postgres) as shop:
        yield shop


@pytest.fixture
def database(shop: Shop) -> ReadOnlyDatabase:
    return ReadOnlyDatabase(shop.settings())


async def test_query_answers_rows_with_types_and_as_a_table(database: ReadOnlyDatabase) -> None:
    result = await call(
        make_server(database),
        "query",
        sql="SELECT id, customer, total, placed, paid FROM orders WHERE id < 3 ORDER BY 1;",
    )
    assert result.structured_content is not None
    assert result.structured_content["columns"] == [
        {"name": "id", "type": "int4"},
        {"name": "customer", "type": "text"},
        {"name": "total", "type": "numeric"},
        {"name": "placed", "type": "date"},
        {"name": "paid", "type": "bool"},
    ]
    assert result.structured_content["rows"] == [
        [1, "customer 1", "1.50", "2026-01-02", False],
        [2, "customer 2", "3.00", "2026-01-03", True],
    ]
    assert "1  | customer 1 | 1.50" in text_of(result)


async def test_query_takes_parameters_of_types_that_json_has_not(database: ReadOnlyDatabase) -> None:
    rows = await answer(
        make_server(database),
        "query",
        sql="SELECT id FROM orders WHERE placed = $1 AND total = $2 AND customer = $3 AND id = ANY($4) AND paid = $5",
        parameters=["2026-01-03", "3.00", "customer 2", [1, 2, 3], True],
    )
    assert rows["rows"] == [[2]]


async def test_wrong_parameters_are_told(database: ReadOnlyDatabase) -> None:
    server = make_server(database)
    assert "has 1 parameters" in await refusal(server, "query", sql="SELECT $1::int")
    assert "$1" in await refusal(server, "query", sql="SELECT $1::int", parameters=["many"])
    assert "22007" in await refusal(server, "query", sql="SELECT $1::date", parameters=["yesterday-ish"])


async def test_values_of_every_kind_are_answered(database: ReadOnlyDatabase) -> None:
    sql = r"""
    SELECT NULL AS nothing, 'x' AS unknown, 9007199254740993::int8 AS big, 'NaN'::float8 AS nan, 1.5::float4 AS real,
           '\xff'::bytea AS bytes, ARRAY[1, 2] AS list, ROW(1, 'a') AS record, '{"a": 1}'::jsonb AS json,
           pg_sleep(0) AS void, 1 AS twice, 2 AS twice, '<a/>'::text AS "odd "" name", 'orders'::regclass AS table
    -- a comment at the end"""
    rows = await answer(make_server(database), "query", sql=sql)
    expected = [
        None,
        "x",
        9007199254740993,
        "NaN",
        1.5,
        r"\xff",
        "{1,2}",
        "(1,a)",
        '{"a": 1}',
        "",
        1,
        2,
        "<a/>",
        "orders",
    ]
    assert rows["rows"] == [expected]
    assert rows["columns"][-2]["name"] == 'odd " name'


async def test_order_of_the_query_is_kept(database: ReadOnlyDatabase) -> None:
    rows = await answer(make_server(database), "query", sql="SELECT id FROM orders ORDER BY total DESC LIMIT 3")
    assert rows["rows"] == [[30], [29], [28]]


async def test_rows_past_the_limit_are_cut_with_a_mark(shop: Shop) -> None:
    server = make_server(ReadOnlyDatabase(shop.settings(max_rows=25)))
    result = await call(server, "query", sql="SELECT generate_series(1, 100000000)")
    assert result.structured_content is not None
    assert len(result.structured_content["rows"]) == 25
    assert result.structured_content["truncated"]
    assert "only the first 25 rows" in text_of(result)
    exact = await answer(server, "query", sql="SELECT generate_series(1, 25)")
    assert not exact["truncated"]


async def test_bytes_past_the_limit_are_cut_with_a_mark(database: ReadOnlyDatabase) -> None:
    rows = await answer(make_server(database), "query", sql="SELECT repeat('ä', 8000) FROM generate_series(1, 900)")
    assert rows["truncated"]
    assert 0 < sum(len(row[0].encode()) for row in rows["rows"]) <= MAX_BYTES


async def test_huge_value_is_cut_by_the_database_and_never_sent(database: ReadOnlyDatabase) -> None:
    rows = await answer(make_server(database), "query", sql="SELECT repeat('x', 20000000) AS huge, 1 AS small")
    assert rows["rows"] == [["x" * MAX_CELL + "…", 1]]
    assert rows["notes"] == ["1 long values were cut"]


async def test_list_tables_tells_what_can_be_read(shop: Shop, database: ReadOnlyDatabase) -> None:
    await shop.owner.execute(f"REVOKE ALL ON secrets FROM {shop.reader}")
    server = make_server(database)
    rows = (await answer(server, "list_tables"))["rows"]
    assert [row[:3] for row in rows] == [["public", "lines", "table"], ["public", "orders", "table"]]
    assert rows[1][4] == "What was bought"
    assert (await answer(server, "list_tables", schema="nowhere"))["rows"] == []


async def test_describe_table_tells_columns_keys_and_references(database: ReadOnlyDatabase) -> None:
    rows = (await answer(make_server(database), "describe_table", name="public.lines"))["rows"]
    assert rows[0][:5] == ["order_id", "integer", False, None, True]
    assert rows[0][5] == "FOREIGN KEY (order_id) REFERENCES orders(id)"


async def test_table_that_is_not_there_is_told(database: ReadOnlyDatabase) -> None:
    server = make_server(database)
    assert "there is no table 'nothing'" in await refusal(server, "describe_table", name="nothing")
    assert "42P01" in await refusal(server, "query", sql="SELECT * FROM nothing")


async def test_every_tool_says_that_it_only_reads(database: ReadOnlyDatabase) -> None:
    async with Client(make_server(database)) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == {"query", "list_tables", "describe_table"}
    for tool in tools:
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint
        assert tool.annotations.idempotent_hint
        assert tool.output_schema is not None
        assert all(argument.get("description") for argument in tool.input_schema["properties"].values())


async def test_unreachable_database_is_told_without_where_it_is(shop: Shop) -> None:
    server = make_server(ReadOnlyDatabase(shop.settings(url="postgresql://me:hidden@127.0.0.1:1/shop")))
    told = await refusal(server, "query", sql="SELECT 1")
    assert "cannot be reached" in told
    assert "127.0.0.1" not in told
    assert "hidden" not in told


async def test_wrong_password_is_told_without_the_login(shop: Shop) -> None:
    url = shop.url().replace("choose-one", "wrong")
    told = await refusal(make_server(ReadOnlyDatabase(shop.settings(url=url))), "query", sql="SELECT 1")
    assert shop.reader not in told


def test_database_without_named_organizations_is_refused_at_start() -> None:
    with pytest.raises(ValidationError, match="name those that may use it"):
        McpDatabaseSettings.model_validate({"url": "postgresql://reader@/shop"})
    with pytest.raises(ValidationError, match="neither an organization's UUID"):
        McpDatabaseSettings.model_validate({"organizations": ["everybody"]})


async def test_superuser_as_login_is_refused(shop: Shop) -> None:
    url = shop.cluster.url(user=SUPERUSER, database=shop.name)
    told = await refusal(make_server(ReadOnlyDatabase(shop.settings(url=url))), "query", sql="SELECT 1")
    assert "is a superuser" in told


@pytest.mark.parametrize(
    ("grant", "told"),
    [
        ("GRANT INSERT ON orders TO {reader}", "REVOKE INSERT ON public.orders FROM {reader}"),
        ("GRANT UPDATE (total) ON orders TO PUBLIC", "REVOKE UPDATE (total) ON public.orders FROM PUBLIC"),
        ("GRANT USAGE ON SEQUENCE numbers TO {reader}", "REVOKE USAGE ON public.numbers FROM {reader}"),
        ("GRANT CREATE ON SCHEMA public TO {reader}", "REVOKE CREATE ON SCHEMA public FROM {reader}"),
        ("ALTER TABLE orders OWNER TO {reader}", "owns public.orders"),
        ("CREATE SCHEMA mine AUTHORIZATION {reader}", "owns schema mine"),
        ("GRANT pg_execute_server_program TO {reader}", "REVOKE pg_execute_server_program FROM {reader}"),
        ("GRANT pg_signal_backend TO {reader}", "REVOKE pg_signal_backend FROM {reader}"),
        ("ALTER ROLE {reader} CREATEROLE", "NOCREATEROLE"),
        ("GRANT stationmaster TO {reader}; GRANT INSERT ON orders TO stationmaster", "has INSERT on public.orders"),
        ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {reader}", "REVOKE EXECUTE ON FUNCTION pg_read_file(text)"),
        (
            "CREATE FUNCTION dblink(text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "REVOKE EXECUTE ON FUNCTION dblink(text)",
        ),
    ],
)
async def test_login_that_can_do_more_than_read_is_refused_with_what_to_run(shop: Shop, grant: str, told: str) -> None:
    await shop.owner.execute(grant.format(reader=shop.reader))
    try:
        refused = await refusal(make_server(ReadOnlyDatabase(shop.settings())), "query", sql="SELECT 1")
    finally:  # roles are the cluster's, not the database's
        await shop.owner.execute("REVOKE INSERT ON orders FROM stationmaster")
        await shop.owner.execute(f"REASSIGN OWNED BY {shop.reader} TO {SUPERUSER}")
    assert told.format(reader=shop.reader) in refused
