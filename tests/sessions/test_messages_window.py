"""The memory window: whole pairs, in order, at a cost that the history does not change."""

from __future__ import annotations

from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stationmaster_server.agents.runtime import Text, ToolCall, ToolResult
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.sessions import store_messages
from stationmaster_server.sessions.model import Message, MessageRole

from tests.sessions.builders import add, converse, insert, message

PAIRS = st.lists(st.sampled_from(["ua", "ucta", "uctcta", "u", "uct"]), max_size=12)


async def window(
    database: Database, tenant: Tenant, session_id: UUID, pairs: int, summary: bool = False
) -> list[Message]:
    async with database.tenant(tenant, read=True) as tx:
        return await store_messages.window(tx, tenant.organization_id, session_id, pairs, summary=summary)


def expected(script: list[str], pairs: int) -> int:
    """How many messages the last so many pairs have."""
    return sum(len(pair) for pair in script[-pairs:])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=PAIRS, pairs=st.integers(min_value=1, max_value=6))
async def test_window_is_the_last_pairs_and_never_parts_a_call_from_its_result(
    database: Database, tenant: Tenant, script: list[str], pairs: int
) -> None:
    session = await insert(database, tenant)
    stored = await converse(database, tenant, session.id, "".join(script))

    shown = await window(database, tenant, session.id, pairs)

    count = expected(script, pairs)
    assert shown == stored[len(stored) - count :]
    calls = {part.call_id for each in shown for part in each.parts if isinstance(part, ToolCall)}
    assert {part.call_id for each in shown for part in each.parts if isinstance(part, ToolResult)} == calls


async def test_window_begins_with_the_newest_summary_when_asked(database: Database, tenant: Tenant) -> None:
    session = await insert(database, tenant)
    await converse(database, tenant, session.id, "uaua")
    await add(database, tenant, message(session.id, MessageRole.SYSTEM, Text("old")))
    await add(database, tenant, message(session.id, MessageRole.SYSTEM, Text("new")))
    await converse(database, tenant, session.id, "uaua")

    with_summary = await window(database, tenant, session.id, 1, summary=True)
    without = await window(database, tenant, session.id, 3)

    assert [each.parts for each in with_summary[:1]] == [(Text("new"),)]
    assert [each.number for each in with_summary] == [6, 9, 10]
    assert [each.number for each in without] == [3, 4, 7, 8, 9, 10]


async def test_window_reads_no_more_rows_when_the_history_grows(database: Database, tenant: Tenant) -> None:
    session = await insert(database, tenant)
    await converse(database, tenant, session.id, "ua" * 20)
    before = await rows_read(database, tenant, session.id)
    await converse(database, tenant, session.id, "ua" * 400)
    async with database.system() as tx:
        await tx.execute("ANALYZE messages")

    assert await rows_read(database, tenant, session.id) == before


async def rows_read(database: Database, tenant: Tenant, session_id: UUID) -> int:
    """How many rows of `messages` the query of a window of five pairs visits."""
    sql = f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) {store_messages.WINDOW}"
    async with database.tenant(tenant, read=True) as tx:
        ((plan,),) = await tx.fetch(sql, tenant.organization_id, session_id, 4, True)
    return _visited(plan[0]["Plan"])


def _visited(node: dict[str, object]) -> int:
    plans = node.get("Plans", [])
    assert isinstance(plans, list)
    below = sum(_visited(child) for child in plans)
    if node.get("Relation Name") != "messages":
        return below
    rows, removed, loops = node["Actual Rows"], node.get("Rows Removed by Filter", 0), node["Actual Loops"]
    assert isinstance(rows, int | float)
    assert isinstance(removed, int | float)
    assert isinstance(loops, int | float)
    return below + int((rows + removed) * loops)


async def test_messages_are_numbered_from_one_without_holes(database: Database, tenant: Tenant) -> None:
    session = await insert(database, tenant)

    stored = await converse(database, tenant, session.id, "uaucta")

    assert [each.number for each in stored] == [1, 2, 3, 4, 5, 6]
