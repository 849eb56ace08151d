"""SearchMessages: what matches, in which order, for whom."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from stationmaster_server.agents.runtime import Text, Thinking, ToolResult
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.sessions import store
from stationmaster_server.sessions.model import MessageRole, SearchHit, SessionState
from stationmaster_server.sessions.search_store import search_messages

from tests.fixtures.database import make_tenant
from tests.sessions.builders import add, colleague, insert, message


async def say(database: Database, tenant: Tenant, session_id: UUID, *texts: str) -> None:
    await add(database, tenant, *(message(session_id, MessageRole.USER, Text(text)) for text in texts))


async def search(
    database: Database,
    tenant: Tenant,
    query: str,
    *,
    session_id: UUID | None = None,
    everything: bool = False,
    page: PageRequest | None = None,
) -> Page[SearchHit]:
    owner = None if everything else tenant.user_id
    async with database.tenant(tenant, read=True) as tx:
        return await search_messages(tx, tenant.organization_id, owner, session_id, query, page or PageRequest(50))


def numbers(page: Page[SearchHit]) -> list[int]:
    return sorted(hit.message.number for hit in page.items)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("kingfisher", [1, 2]),
        ("KINGFISHER", [1, 2]),
        ("kingfisher river", [1]),
        ('"blue kingfisher"', [2]),
        ("river or owl", [1, 3]),
        ("kingfisher -river", [2]),
        ("heron", []),
        ("Überfluß", [4]),
        ("the", [1]),
        ("' OR 1=1; --", []),
    ],
)
async def test_words_phrases_or_and_not_work_as_in_a_web_search(
    database: Database, tenant: Tenant, query: str, found: list[int]
) -> None:
    session = await insert(database, tenant)
    texts = ("a kingfisher at the river", "one blue kingfisher", "owl", "viel Überfluß hier")
    await say(database, tenant, session.id, *texts)

    assert numbers(await search(database, tenant, query)) == found


async def test_the_best_match_comes_first_with_its_words_marked(database: Database, tenant: Tenant) -> None:
    session = await insert(database, tenant)
    await say(database, tenant, session.id, "an owl and much else", "owl owl owl")

    first, second = (await search(database, tenant, "owl")).items

    assert (first.message.number, second.message.number) == (2, 1)
    assert first.score > second.score
    assert "«owl»" in first.snippet


async def test_only_text_is_searched_not_thinking_and_not_tool_results(database: Database, tenant: Tenant) -> None:
    session = await insert(database, tenant)
    parts = (Thinking("owl"), ToolResult("call", "files.read", "owl"), Text("bird"))
    await add(database, tenant, message(session.id, MessageRole.ASSISTANT, *parts))

    assert numbers(await search(database, tenant, "owl")) == []
    assert numbers(await search(database, tenant, "bird")) == [1]


async def test_only_ones_own_sessions_are_searched_unless_one_may_see_all(database: Database, tenant: Tenant) -> None:
    other = colleague(tenant)
    stranger = await make_tenant(database)
    for owner in (tenant, other, stranger):
        session = await insert(database, owner)
        await say(database, owner, session.id, "owl")

    assert len((await search(database, tenant, "owl")).items) == 1
    assert len((await search(database, tenant, "owl", everything=True)).items) == 2


async def test_archived_sessions_are_searched_only_by_name(database: Database, tenant: Tenant) -> None:
    session = await insert(database, tenant)
    await say(database, tenant, session.id, "owl")
    async with database.system() as tx:
        await store.set_state(tx, tenant.organization_id, session.id, SessionState.ARCHIVED)

    assert numbers(await search(database, tenant, "owl")) == []
    assert numbers(await search(database, tenant, "owl", session_id=session.id)) == [1]


async def test_pages_bring_every_match_once_also_when_scores_are_equal(database: Database, tenant: Tenant) -> None:
    expected = set()
    for _ in range(3):
        session = await insert(database, tenant)
        await say(database, tenant, session.id, *["owl"] * 7)
        expected |= {(session.id, number) for number in range(1, 8)}

    seen: list[tuple[UUID, int]] = []
    cursor: tuple[Any, ...] | None = None
    while True:
        page = await search(database, tenant, "owl", page=PageRequest(4, cursor))
        seen += [(hit.message.session_id, hit.message.number) for hit in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert len(seen) == len(expected)
    assert set(seen) == expected


async def test_a_text_of_a_mebibyte_and_one_with_nul_can_be_stored_and_found(
    database: Database, tenant: Tenant
) -> None:
    session = await insert(database, tenant)
    await say(database, tenant, session.id, "owl " + "x" * (1 << 20))
    many = " ".join(f"w{n}" for n in range(150_000))
    await say(database, tenant, session.id, many, "before\0after")

    assert numbers(await search(database, tenant, "owl")) == [1]
    assert numbers(await search(database, tenant, "w7")) == [2]
    (hit,) = (await search(database, tenant, "after")).items
    assert hit.message.parts == (Text("before\0after"),)
