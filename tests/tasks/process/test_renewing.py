"""Documents are embedded anew when the encoder is another."""

from __future__ import annotations

import pytest
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.tasks.process.library import Library
from stationmaster_server.tasks.process.renewing import Renewing

from tests.embedding.here import embedder_here
from tests.embedding.named import Named
from tests.embedding.picky import Picky, embedder_of
from tests.tasks.process.test_library import PIECES, caller_of, document, put


@pytest.fixture
def library(database: Database) -> Library:
    """The library of a server."""
    return Library(database, AuditLog(database))


def renewing(database: Database, encoder: str) -> Renewing:
    return Renewing(database, embedder_here(Named(encoder)))


async def encoders(database: Database) -> tuple[set[str], set[str]]:
    """Those of documents, and those of pieces."""
    async with database.system(autocommit=True) as tx:
        documents = await tx.fetch("SELECT encoder FROM documents")
        pieces = await tx.fetch("SELECT encoder FROM pieces")
    return {row[0] for row in documents}, {row[0] for row in pieces}


async def test_all_pieces_of_all_documents_become_the_encoders_own(
    library: Library, tenant: Tenant, database: Database
) -> None:
    for source in ("one", "two", "three"):
        await put(library, tenant, document(tenant, source=source))
    assert await renewing(database, "hashing-1").renew(1000) == 0, "they are its own"
    assert await renewing(database, "new").renew(1000) == 3 * len(PIECES)
    assert await encoders(database) == ({"new"}, {"new"})
    assert await renewing(database, "new").renew(1000) == 0


async def test_an_encoder_that_comes_back_finds_what_the_other_had_begun(
    library: Library, tenant: Tenant, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stationmaster_server.tasks.process.renewing._AT_ONCE", 4)
    await put(library, tenant, document(tenant))
    assert await renewing(database, "new").renew(3) == 4
    assert await encoders(database) == ({""}, {"new", "hashing-1"})
    await renewing(database, "hashing-1").renew(1000)
    assert await encoders(database) == ({"hashing-1"}, {"hashing-1"})


async def test_unfinished_documents_are_left_to_whoever_makes_them(
    library: Library, tenant: Tenant, database: Database
) -> None:
    new = document(tenant)
    await library.begin(caller_of(tenant), new)
    assert await renewing(database, "new").renew(1000) == 0
    assert (await encoders(database))[0] == {"hashing-1"}


async def test_a_piece_that_the_encoder_refuses_holds_up_neither_its_document_nor_the_next_round(
    library: Library, tenant: Tenant, database: Database
) -> None:
    await put(library, tenant, document(tenant))
    async with database.system() as tx:
        await tx.execute("UPDATE pieces SET text = 'a monster' WHERE number = 3")
    async with embedder_of(Picky(["monster"])) as embedder:
        assert await Renewing(database, embedder).renew(1000) == len(PIECES)
        assert await encoders(database) == ({embedder.name}, {embedder.name})
    async with database.system(autocommit=True) as tx:  # what another encoder made of it would be compared with others
        rows = await tx.fetch("SELECT number FROM pieces WHERE vector_norm(vector) = 0")
    assert [row["number"] for row in rows] == [3]
