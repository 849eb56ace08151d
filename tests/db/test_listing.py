"""Lists: pages that neither repeat nor skip."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.errors import InvalidArgument, Reason

LISTING = Listing(
    {"create_time": Field("l.created_at", datetime), "title": Field("l.title", str), "rank": Field("l.rank", int)},
    key="l.id",
    default_order="create_time desc",
    order_fields=("create_time", "title", "rank"),
)
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest_asyncio.fixture
async def listed(database: Database, administrator_url: str) -> AsyncIterator[Database]:
    connection = await asyncpg.connect(administrator_url)
    await connection.execute(
        "CREATE TABLE listed (id uuid PRIMARY KEY, title text, rank int, created_at timestamptz);"
        " GRANT ALL ON listed TO stationmaster_system"
    )
    await connection.close()
    yield database


async def insert(database: Database, rank: int) -> UUID:
    made = new_id()
    async with database.system(autocommit=True) as tx:
        moment = START + timedelta(seconds=rank)
        await tx.execute("INSERT INTO listed VALUES ($1, $2, $3, $4)", made, f"title {rank}", rank, moment)
    return made


async def read(database: Database, page: PageRequest, filter_text: str = "", order_by: str = "") -> Page[UUID]:
    clause = LISTING.sql(filter_text, order_by, page, start=2)
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch(
            f"SELECT l.id, {clause.cursor_sql} FROM listed l"
            f" WHERE $1 AND {clause.where_sql} ORDER BY {clause.order_sql}",
            True,
            *clause.args,
        )
    return clause.page(rows, lambda row: row["id"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.integers(0, 5), max_size=12),
    between=st.lists(st.integers(0, 5), max_size=12),
    size=st.integers(1, 5),
    order=st.sampled_from(["", "title", "rank desc", "create_time asc"]),
)
async def test_paging_never_repeats_or_skips_while_rows_are_inserted(
    listed: Database, before: list[int], between: list[int], size: int, order: str
) -> None:
    async with listed.system(autocommit=True) as tx:
        await tx.execute("DELETE FROM listed")
    there = [await insert(listed, rank) for rank in before]
    seen: list[UUID] = []
    page = PageRequest(size)
    while True:
        answer = await read(listed, page, order_by=order)
        assert len(answer.items) <= size
        seen += answer.items
        if answer.next_cursor is None:
            break
        if between:
            await insert(listed, between.pop())
        page = PageRequest(size, answer.next_cursor)
    assert len(seen) == len(set(seen))
    assert set(there) <= set(seen)


async def test_the_last_page_says_so_also_when_it_is_full(listed: Database) -> None:
    for rank in range(4):
        await insert(listed, rank)
    first = await read(listed, PageRequest(2))
    assert first.next_cursor is not None
    second = await read(listed, PageRequest(2, first.next_cursor))
    assert (len(second.items), second.next_cursor) == (2, None)


async def test_a_filter_holds_on_every_page(listed: Database) -> None:
    made = [await insert(listed, rank) for rank in range(6)]
    first = await read(listed, PageRequest(2), "rank >= 2", "rank")
    second = await read(listed, PageRequest(2, first.next_cursor), "rank >= 2", "rank")
    assert first.items + second.items == made[2:]


@pytest.mark.parametrize("order_by", ["nothing", "rank up", "rank desc, title", "rank; DROP TABLE listed", "l.rank"])
def test_an_unknown_order_is_refused_with_the_fields_there_are(order_by: str) -> None:
    with pytest.raises(InvalidArgument, match="fields: create_time, rank, title") as caught:
        LISTING.sql("", order_by, PageRequest(1))
    assert caught.value.reason is Reason.INVALID_ORDER_BY


@pytest.mark.parametrize("after", [(1, new_id()), (START, "key"), (START,), ("title", new_id())])
def test_a_cursor_of_another_order_is_refused(after: tuple[object, ...]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        LISTING.sql("", "create_time", PageRequest(1, after))
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID
