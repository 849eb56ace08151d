"""Messages by meaning: embedded in the background, and found by whoever sees them."""

from __future__ import annotations

import asyncio

import pytest
from stationmaster_server.agents.runtime import Text
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.embedding.ranking import Mode
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.sessions import meaning_store, store_messages
from stationmaster_server.sessions.embeddings import MessageEmbedding
from stationmaster_server.sessions.model import MessageRole, SearchHit, Session, SessionState
from stationmaster_server.sessions.searching import MessageSearch

from tests.embedding.here import embedder_here
from tests.embedding.named import Named
from tests.embedding.picky import Picky, embedder_of
from tests.fixtures.database import make_tenant
from tests.sessions.builders import add, colleague, insert, make_caller, message


async def say(database: Database, tenant: Tenant, *texts: str) -> Session:
    """A new session with these messages."""
    session = await insert(database, tenant)
    await add(database, tenant, *(message(session.id, MessageRole.USER, Text(text)) for text in texts))
    return session


async def embed(database: Database, encoder: str = "one") -> int:
    return await MessageEmbedding(database, embedder_here(Named(encoder))).embed_rest(1000)


async def search(
    database: Database,
    caller: Caller,
    query: str,
    mode: Mode = Mode.MEANING,
    *,
    session: Session | None = None,
    page: PageRequest | None = None,
    encoder: str = "one",
) -> Page[SearchHit]:
    searching = MessageSearch(database, embedder_here(Named(encoder)))
    return await searching.search(caller, session.id if session else None, query, mode, page or PageRequest(50))


async def found(
    database: Database, caller: Caller, query: str, mode: Mode = Mode.MEANING, encoder: str = "one"
) -> list[str]:
    hits = (await search(database, caller, query, mode, encoder=encoder)).items
    return [text_of(hit) for hit in hits]


def text_of(hit: SearchHit) -> str:
    (part,) = hit.message.parts
    assert isinstance(part, Text)
    return part.text


async def vectors(database: Database) -> list[tuple[int, int, str]]:
    """The message, the piece and the encoder of each."""
    async with database.system(autocommit=True) as tx:
        rows = await tx.fetch("SELECT number, piece, encoder FROM message_vectors ORDER BY session_id, number, piece")
    return [tuple(row) for row in rows]


@pytest.fixture
def caller(tenant: Tenant) -> Caller:
    return make_caller(tenant)


async def test_messages_near_the_query_are_found_the_nearest_first(
    database: Database, tenant: Tenant, caller: Caller
) -> None:
    await say(database, tenant, "unpaid invoices and more", "the garden needs water", "unpaid invoice", "")
    assert await found(database, caller, "invoices that are unpaid") == []
    assert await embed(database) == 4
    assert await embed(database) == 0
    assert await found(database, caller, "invoices that are unpaid") == ["unpaid invoices and more", "unpaid invoice"]
    first, second = (await search(database, caller, "invoices that are unpaid")).items
    assert 1 >= first.score > second.score > 0.12
    assert first.snippet == "«unpaid» «invoices» and more"


async def test_what_is_said_after_a_session_was_embedded_is_embedded_too(
    database: Database, tenant: Tenant, caller: Caller
) -> None:
    session = await say(database, tenant, *(f"penguin number {n}" for n in range(40)))
    assert await embed(database) == 40
    await add(database, tenant, message(session.id, MessageRole.ASSISTANT, Text("a walrus")))
    assert await embed(database) == 1
    assert await found(database, caller, "walrus") == ["a walrus"]
    assert len(await found(database, caller, "penguin")) == 40


async def test_a_long_message_is_found_by_its_end_and_the_place_is_shown(
    database: Database, tenant: Tenant, caller: Caller
) -> None:
    long = "The database is backed up nightly. " * 100 + "\n\nPenguins are fed at noon with herring and squid."
    await say(database, tenant, long)
    await embed(database)
    (hit,) = (await search(database, caller, "feeding penguins herring")).items
    assert "«Penguins» are fed at noon with «herring»" in hit.snippet
    assert len(await vectors(database)) > 3


async def test_by_both_ways_the_order_is_of_both(database: Database, tenant: Tenant, caller: Caller) -> None:
    await say(database, tenant, "invoicing reminders", "invoices", "about penguins and an invoices file", "else")
    await embed(database)
    by_words = await found(database, caller, "invoices", Mode.TEXT)
    by_both = await found(database, caller, "invoices", Mode.HYBRID)
    assert set(by_words) == {"invoices", "about penguins and an invoices file"}
    assert by_both[0] == "invoices"
    assert {*by_words, "invoicing reminders"} <= set(by_both)
    assert "else" not in by_both


async def test_everybody_finds_what_they_see(database: Database, tenant: Tenant, caller: Caller) -> None:
    mate = colleague(tenant)
    mine, theirs = await say(database, tenant, "penguins of mine"), await say(database, mate, "penguins of theirs")
    foreign = await make_tenant(database)
    await say(database, foreign, "penguins of others")
    await embed(database)
    assert await found(database, caller, "penguins") == ["penguins of mine"]
    everything = await found(database, make_caller(tenant, Role.ADMIN), "penguins")
    assert sorted(everything) == ["penguins of mine", "penguins of theirs"]
    assert await found(database, make_caller(foreign), "penguins") == ["penguins of others"]
    async with database.system() as tx:
        await tx.execute("UPDATE sessions SET state = $2 WHERE id = $1", mine.id, SessionState.ARCHIVED)
    assert await found(database, caller, "penguins") == []
    (hit,) = (await search(database, caller, "penguins", session=mine)).items
    assert text_of(hit) == "penguins of mine"
    assert (await search(database, make_caller(tenant, Role.ADMIN), "penguins", session=theirs)).items


@pytest.mark.parametrize("few", [20_000, 5])
async def test_nearer_messages_of_others_hide_nothing(
    database: Database, tenant: Tenant, caller: Caller, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(meaning_store, "FEW_PIECES", few)
    own = [f"penguins and thing number {n}" for n in range(10)]
    session = await say(database, tenant, *own)
    other = await say(database, colleague(tenant), *(f"penguins {n}" for n in range(3)))
    await embed(database)
    async with database.system() as tx:  # 2,000 more of theirs, all of them nearer
        await tx.execute(
            """INSERT INTO messages (organization_id, session_id, number, role, parts, text)
               SELECT organization_id, session_id, 1000 + g, role, parts, text FROM messages, generate_series(1, 2000) g
               WHERE session_id = $1 AND number = 1""",
            other.id,
        )
        await tx.execute(
            """INSERT INTO message_vectors SELECT organization_id, session_id, 1000 + g, piece, user_id, start_offset,
                   length, encoder, vector FROM message_vectors, generate_series(1, 2000) g
               WHERE session_id = $1 AND number = 1""",
            other.id,
        )
    assert sorted(await found(database, caller, "penguins")) == sorted(own)
    assert len((await search(database, caller, "penguins", session=session)).items) == 10


async def test_pages_are_the_whole_of_it(database: Database, tenant: Tenant, caller: Caller) -> None:
    await say(database, tenant, *(f"penguins {'and more ' * n}" for n in range(7)))
    await embed(database)
    whole, pages = await found(database, caller, "penguins", Mode.HYBRID), list[str]()
    page: PageRequest | None = PageRequest(3)
    while page:
        answer = await search(database, caller, "penguins", Mode.HYBRID, page=page)
        pages += map(text_of, answer.items)
        page = PageRequest(3, answer.next_cursor) if answer.next_cursor else None
    assert pages == whole
    assert len(whole) == 7
    with pytest.raises(InvalidArgument, match="page_token"):
        await search(database, caller, "penguins", page=PageRequest(3, (0.5, "x")))


async def test_messages_that_were_rolled_back_are_gone_and_hinder_nothing(
    database: Database, tenant: Tenant, caller: Caller
) -> None:
    session = await say(database, tenant, "penguins one", "penguins two", "penguins three")
    await embed(database)
    async with database.system() as tx:
        await tx.execute("DELETE FROM messages WHERE session_id = $1 AND number > 1", session.id)
    await add(database, tenant, message(session.id, MessageRole.USER, Text("penguins four")))
    assert await embed(database) == 1
    assert sorted(await found(database, caller, "penguins")) == ["penguins four", "penguins one"]
    assert [number for number, _, _ in await vectors(database)] == [1, 4]


async def test_a_fork_is_found_too(database: Database, tenant: Tenant, caller: Caller) -> None:
    session, child = await say(database, tenant, "penguins"), await insert(database, tenant)
    async with database.system() as tx:
        await store_messages.copy_messages(tx, tenant.organization_id, session.id, child.id, 1)
    await embed(database)
    assert len(await found(database, caller, "penguins")) == 2


async def test_several_at_once_write_each_vector_once(database: Database, tenant: Tenant, caller: Caller) -> None:
    for _ in range(5):
        await say(database, tenant, *(f"penguin {n}" for n in range(20)))
    await asyncio.gather(*(embed(database) for _ in range(3)))
    assert await embed(database) == 0
    assert len(await vectors(database)) == 100


async def test_a_run_does_no_more_than_it_may(database: Database, tenant: Tenant) -> None:
    await say(database, tenant, *(f"penguin {n}" for n in range(50)))
    embedding = MessageEmbedding(database, embedder_here(Named("one")))
    assert await embedding.embed_rest(20) == 32  # whole batches
    assert await embedding.embed_rest(20) == 18


async def test_vectors_of_another_encoder_are_neither_compared_nor_kept(
    database: Database, tenant: Tenant, caller: Caller
) -> None:
    session = await say(database, tenant, "penguins one", "penguins two")
    await embed(database, "one")
    assert await found(database, caller, "penguins", encoder="two") == []
    await add(database, tenant, message(session.id, MessageRole.USER, Text("penguins three")))
    await embed(database, "two")
    assert await found(database, caller, "penguins", encoder="two") == ["penguins three"]
    another = MessageEmbedding(database, embedder_here(Named("two")))
    await another.begin_anew()
    assert await another.embed_rest(1000) == 3
    assert len(await found(database, caller, "penguins", encoder="two")) == 3
    assert await found(database, caller, "penguins", encoder="one") == []
    assert {encoder for _, _, encoder in await vectors(database)} == {"two"}
    await another.begin_anew()
    assert await another.embed_rest(1000) == 0


async def test_a_message_that_the_embedding_server_refuses_keeps_no_other_from_being_found(
    database: Database, tenant: Tenant
) -> None:
    await say(database, tenant, "penguins one", "a monster", "penguins two")
    await say(database, await make_tenant(database), "penguins three")
    async with embedder_of(Picky(["monster"])) as embedder:
        embedding = MessageEmbedding(database, embedder)
        assert await embedding.embed_rest(1000) == 4
        assert await embedding.embed_rest(1000) == 0
    assert len(await vectors(database)) == 3


async def test_a_text_that_says_nothing_is_near_nothing(database: Database, tenant: Tenant, caller: Caller) -> None:
    await say(database, tenant, "!!!", "penguins", "\0")
    await embed(database)
    assert await found(database, caller, "???") == []
    assert await found(database, caller, "penguins\0") == ["penguins"]
