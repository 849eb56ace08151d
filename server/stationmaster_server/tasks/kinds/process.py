"""The kind `process`: documents are split into pieces, the pieces embedded, so that they are found by meaning."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Self
from uuid import UUID, uuid5

from pydantic import BaseModel, Field, model_validator

from stationmaster_server.config.documents import DocumentSettings
from stationmaster_server.db.caller import Caller
from stationmaster_server.embedding.embedder import Embedder
from stationmaster_server.errors import Reason, ResourceExhausted
from stationmaster_server.identity.roles import require_scopes
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Later, Payload
from stationmaster_server.tasks.model import Execution, execution_name
from stationmaster_server.tasks.process.library import Library
from stationmaster_server.tasks.process.model import Cut, Document, Piece, Source, Splitting, Unit, document_name
from stationmaster_server.tasks.process.sources import Sources, media_type_of
from stationmaster_server.tasks.process.splitter import split
from stationmaster_server.tasks.process.store import context
from stationmaster_server.tasks.reports.figures import count, size
from stationmaster_server.tasks.reports.model import Section, Table

_SPLIT_LIMIT = timedelta(seconds=60)
_MOST_NAMES, _MOST_LISTED = 1000, 500
_COUNTED = {
    "document_count": "documents",
    "piece_count": "pieces",
    "replaced_count": "earlier documents replaced",
    "removed_count": "documents removed",
}
_SAVE_EVERY = 20
_BATCH = 64
"""Documents between two checkpoints: they save looking at what is done, not doing it."""
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

SourceName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=2000)]


class ProcessPayload(Payload):
    """One of: `text`; `session` with `path`; `crawl`; or nothing but sources to `remove`. And how it is split."""

    text: Annotated[str, Field(max_length=250_000)] = ""
    """A text of your own."""
    session: Annotated[str, Field(pattern=f"^(sessions/{_UUID})?$")] = ""
    """Of whose workspace a file is taken."""
    path: Annotated[str, Field(max_length=1024)] = ""
    """The file, with `session`."""
    crawl: Annotated[str, Field(pattern=f"^(executions/{_UUID})?$")] = ""
    """A crawl that has succeeded: each of its pages is a document."""
    source: SourceName = ""
    """What the text or file is found and replaced under; without it the execution, or the session and path."""
    title: Annotated[str, Field(max_length=500)] = ""
    """Of the text or file."""
    size: Annotated[int, Field(ge=64, le=20_000)] = 1200
    """How long a piece is at most, in `unit`."""
    overlap: Annotated[int, Field(ge=0, le=10_000)] = 150
    """How much of the piece before each one repeats; at most half of `size`."""
    unit: Unit = Unit.CHARACTERS
    """What `size` and `overlap` are counted in; `TOKENS` is an estimate."""
    cut: Cut = Cut.HEADINGS
    """Where pieces end: with their section, between paragraphs, or between sentences."""
    replace: bool = False
    """Take the earlier documents of the same source away."""
    remove: Annotated[tuple[SourceName, ...], Field(max_length=100)] = ()
    """Sources whose documents are taken away; may be all there is."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(map(bool, (self.text, self.session, self.crawl))) + (not self.has_source and bool(self.remove)) != 1:
            raise ValueError("give one of: text; session and path; crawl; or only sources to remove")
        if bool(self.session) != bool(self.path):
            raise ValueError("a file is named by session and path together")
        if self.crawl and (self.source or self.title):
            raise ValueError("the pages of a crawl have their URLs as sources and titles of their own")
        if 2 * self.overlap > self.size:
            raise ValueError("overlap must be at most half of size")
        return self

    @property
    def has_source(self) -> bool:
        """Whether there is something to process."""
        return bool(self.text or self.session or self.crawl)

    @property
    def splitting(self) -> Splitting:
        """How texts are split."""
        return Splitting(self.size, self.overlap, self.unit, self.cut)


@dataclass
class _Progress:
    """What the execution has done, in all its attempts."""

    after: int = 0
    documents: int = 0
    pieces: int = 0
    replaced: int = 0
    removed: int | None = None
    names: list[str] = field(default_factory=list)

    def counters(self) -> dict[str, int]:
        return {"documents": self.documents, "pieces": self.pieces}

    def to_json(self) -> dict[str, Any]:
        return {
            "after": self.after,
            "documents": self.documents,
            "pieces": self.pieces,
            "replaced": self.replaced,
            "removed": self.removed,
            "names": self.names,
        }


class ProcessKind:
    """Puts documents into the library, under ids that follow from the execution: an attempt goes on with them."""

    name: ClassVar[str] = "process"
    payload: ClassVar[type[BaseModel]] = ProcessPayload

    def __init__(
        self, sources: Sources, library: Library, embedder: Embedder, pools: Pools, settings: DocumentSettings
    ) -> None:
        self._sources = sources
        self._library = library
        self._embedder = embedder
        self._pools = pools
        self._settings = settings

    def admit(self, caller: Caller, payload: Mapping[str, Any]) -> None:
        """Who puts a file of a session into the library must be able to read it. Raises PermissionDenied."""
        if payload.get("session"):
            require_scopes(caller, frozenset({"sessions.read"}), "process a file of a session")

    async def run(self, job: Job[ProcessPayload]) -> Done:
        """Process, or go on. Raises KindFailed, Later while the server has no process free."""
        state = _Progress(**(job.checkpoint or {}))
        if state.removed is None:  # once: later there are documents of its own
            state.removed = await self._library.remove(job.caller, job.payload.remove) if job.payload.remove else 0
            await job.save(state.to_json())
        try:
            await self._process(job, state)
        except ResourceExhausted as error:
            if error.reason is not Reason.SERVER_OVERLOADED:
                raise
            raise Later(error.retry_after) from None
        job.progress(1.0, "", state.counters())
        return Done(_result(state))

    async def sections(self, caller: Caller, execution: Execution) -> Sequence[Section]:
        """The documents that it made."""
        result = execution.result
        if not result:
            return ()
        ids = [_id(name) for name in result["documents"][:_MOST_LISTED]]
        rows = tuple(
            (one.source, one.title, count(one.pieces), size(one.size_bytes), document_name(one.id))
            for one in await self._library.documents(caller, ids)
        )
        text = "\n".join(f"- {count(int(result[name]))} {words}" for name, words in _COUNTED.items() if result[name])
        if result["document_count"] > len(rows):
            text += f"\n\nThe {count(len(rows))} that are listed are the first, as far as they are still there."
        table = Table(("Source", "Title", "Pieces", "Size", "Document"), rows, frozenset({2, 3}))
        return (Section("Documents", text, table if rows else None),)

    async def _process(self, job: Job[ProcessPayload], state: _Progress) -> None:
        payload = job.payload
        total = 1
        if payload.crawl:
            total = await self._sources.count_pages(job.caller, _id(payload.crawl))
        room = self._settings.max_pieces - await self._library.count_pieces(job.caller)
        async with aclosing(self._texts(job, state.after)) as texts:
            async for number, source in texts:
                room -= await self._add(job, state, source, total, room)
                state.after = number
                if state.documents % _SAVE_EVERY == 0:
                    await job.save(state.to_json())

    async def _texts(self, job: Job[ProcessPayload], after: int) -> AsyncGenerator[tuple[int, Source], None]:
        payload = job.payload
        if payload.crawl:
            async for page in self._sources.pages(job.caller, _id(payload.crawl), after):
                yield page
        elif payload.session and not after:
            text = await self._sources.file(job.caller, _id(payload.session), payload.path)
            name = payload.source or f"{payload.session}/{payload.path}"
            yield 1, Source(name, payload.title or payload.path, media_type_of(payload.path), text)
        elif payload.text and not after:
            name = payload.source or execution_name(job.execution_id)
            yield 1, Source(name, payload.title, "text/markdown", payload.text)

    async def _add(self, job: Job[ProcessPayload], state: _Progress, source: Source, total: int, room: int) -> int:
        """Add a document; returns how many pieces that took, beside those that an earlier attempt had stored."""
        # What PostgreSQL cannot store becomes the sign for that; the offsets stay.
        source = Source(source.name, source.title.replace("\0", " "), source.media_type, _storable(source.text))
        document = self._document(job, source)
        pieces = await self._split(source, job.payload.splitting)
        lacking = await self._library.lacking(job.caller, document, len(pieces))
        if lacking > room:
            raise KindFailed(
                f"{source.name} takes {lacking} pieces; the organization has room for {max(room, 0)} more"
                f" (this server's setting documents.max_pieces is {self._settings.max_pieces}): remove documents",
                reason="DOCUMENTS_FULL",
                retryable=False,
            )
        there, ready = await self._library.begin(job.caller, document)
        while not ready and there < len(pieces):
            there = await self._append(job, document, pieces[there : there + _BATCH])
            fraction = (state.documents + there / len(pieces)) / total
            counters = {"documents": state.documents, "pieces": state.pieces + there}
            job.progress(min(fraction, 1.0), source.name, counters)
        if not ready:
            state.replaced += await self._library.finish(job.caller, document, replace=job.payload.replace)
        state.documents += 1
        state.pieces += len(pieces)
        if len(state.names) < _MOST_NAMES:
            state.names.append(document_name(document.id))
        return lacking

    async def _split(self, source: Source, how: Splitting) -> list[Piece]:
        return await self._pools.cpu(split, source.text, how, source.media_type, timeout=_SPLIT_LIMIT)

    async def _append(self, job: Job[ProcessPayload], document: Document, batch: list[Piece]) -> int:
        texts = [f"{context(document, piece)}\n{piece.text}" for piece in batch]
        return await self._library.append(job.caller, document, batch, await self._embedder.embed(texts))

    def _document(self, job: Job[ProcessPayload], source: Source) -> Document:
        return Document(
            id=uuid5(job.execution_id, source.name),
            user_id=job.caller.tenant.user_id,
            execution_id=job.execution_id,
            source=source.name,
            title=source.title[:500],
            media_type=source.media_type,
            size_bytes=len(source.text.encode("utf-8", "surrogatepass")),
            sha256=source.sha256(),
            encoder=self._embedder.name,
            pieces=0,
            ready=False,
            created_at=datetime.now(UTC),
        )


def _storable(text: str) -> str:
    return text.replace("\0", "\ufffd")


def _id(name: str) -> UUID:
    return UUID(name.rpartition("/")[2])


def _result(state: _Progress) -> Mapping[str, Any]:
    return {
        "documents": state.names,
        "documents_left_out": state.documents - len(state.names),
        "document_count": state.documents,
        "piece_count": state.pieces,
        "replaced_count": state.replaced,
        "removed_count": state.removed or 0,
    }
