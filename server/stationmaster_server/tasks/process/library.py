"""Documents, durably: each batch of pieces is one transaction, and none is there twice whatever dies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import LeaseLost
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.tasks.process import store
from stationmaster_server.tasks.process.model import Document, Piece, document_name

_FORGET_AFTER = timedelta(days=1)
_FORGET_AT_ONCE = 20


class Library:
    """What executions put documents into.

    A document is a function of its text and encoder, so it does not matter which attempt wrote a piece: an attempt that
    stalled and one that took over may both write, in turns, and there is one document.
    """

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database = database
        self._audit = audit

    async def count_pieces(self, caller: Caller) -> int:
        """How many pieces the organization has."""
        async with self._database.system(autocommit=True) as tx:
            return await store.count_pieces(tx, caller.tenant.organization_id)

    async def documents(self, caller: Caller, ids: Sequence[UUID]) -> list[Document]:
        """Those of the documents that are still there, in their order."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await store.documents(tx, caller.tenant.organization_id, ids)

    async def lacking(self, caller: Caller, document: Document, pieces: int) -> int:
        """How many pieces are still to be stored of a document that has `pieces`."""
        async with self._database.system(autocommit=True) as tx:
            there, ready = await store.stored(tx, caller.tenant.organization_id, document.id)
        return 0 if ready else pieces - there

    async def begin(self, caller: Caller, document: Document) -> tuple[int, bool]:
        """Begin a document or go on with it: how many pieces are there, and whether those are all."""
        async with self._database.system() as tx:
            return await store.begin(tx, caller.tenant.organization_id, document)

    async def append(
        self, caller: Caller, document: Document, pieces: Sequence[Piece], vectors: Sequence[list[float]]
    ) -> int:
        """Add the next pieces; returns how many are there now, others' as well. Raises LeaseLost."""
        organization_id = caller.tenant.organization_id
        async with self._database.system() as tx:
            there = _same(await store.lock(tx, organization_id, document), document)
            if there != pieces[0].number:
                return there  # somebody else was faster
            await store.append(tx, organization_id, document, pieces, vectors)
            return there + len(pieces)

    async def finish(self, caller: Caller, document: Document, *, replace: bool) -> int:
        """Let the document be found; returns how many it replaced. Raises LeaseLost."""
        organization_id = caller.tenant.organization_id
        async with self._database.system() as tx:
            await store.lock_source(tx, organization_id, document.user_id, document.source)
            pieces = _same(await store.lock(tx, organization_id, document), document)
            gone = await store.finish(tx, organization_id, document, replace=replace)
            details = {"source": document.source[:200], "pieces": pieces, "replaced": len(gone)}
            await self._audit.write(tx, caller, AuditEntry("document.add", document_name(document.id), details=details))
        return len(gone)

    async def remove(self, caller: Caller, sources: Sequence[str]) -> int:
        """Delete the caller's documents of these sources; returns how many there were."""
        tenant = caller.tenant
        async with self._database.system() as tx:
            gone = await store.delete(tx, tenant.organization_id, tenant.user_id, sources)
            for document_id in gone:
                await self._audit.write(tx, caller, AuditEntry("document.delete", document_name(document_id)))
        return len(gone)


def _same(there: int | None, document: Document) -> int:
    if there is None:
        raise LeaseLost(f"{document_name(document.id)} is another one now, or finished: somebody else works on it")
    return there


async def forget_unfinished(database: Database) -> None:
    """Delete what executions that failed or were cancelled left behind."""
    more = True
    while more:
        async with database.system() as tx:
            more = await store.forget_unfinished(tx, _FORGET_AFTER, _FORGET_AT_ONCE) == _FORGET_AT_ONCE
