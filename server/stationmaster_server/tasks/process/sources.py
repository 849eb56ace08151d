"""Where the texts of documents come from: the payload itself, a file of a session's workspace, the pages of a crawl."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.resilience.pools import Pools
from stationmaster_server.sessions.model import Session
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.places.place import Place
from stationmaster_server.storage.shelf import Shelf
from stationmaster_server.storage.workspace import TooLarge, Workspace
from stationmaster_server.tasks import execution_store
from stationmaster_server.tasks.crawl import page_store
from stationmaster_server.tasks.crawl.model import PageState
from stationmaster_server.tasks.kinds.base import KindFailed
from stationmaster_server.tasks.model import FINAL, ExecutionState, execution_name
from stationmaster_server.tasks.process.model import Source

_READ_LIMIT = timedelta(seconds=30)
_PAGES_AT_ONCE = 20
_MEDIA_TYPES = {".md": "text/markdown", ".markdown": "text/markdown"}


class Sessions(Protocol):
    """What is needed of sessions; `sessions.service.SessionService` is the one there is."""

    async def get(self, caller: Caller, session_id: UUID) -> Session:
        """One session. Raises NotFound."""
        ...


class Sources:
    """Reads texts as their owner may."""

    def __init__(
        self,
        database: Database,
        pools: Pools,
        sessions: Sessions,
        workspace_of: Callable[[UUID], Path],
        bucket: Place | None,
        max_bytes: int,
    ) -> None:
        """`bucket`: where workspaces of sessions are, when they are no folders of this host."""
        self._database = database
        self._pools = pools
        self._sessions = sessions
        self._workspace_of = workspace_of
        self._bucket = bucket
        self._max_bytes = max_bytes

    async def file(self, caller: Caller, session_id: UUID, path: str) -> str:
        """The text of a file. Raises NotFound, KindFailed."""
        await self._sessions.get(caller, session_id)
        try:
            content = await self._read(caller.tenant.organization_id, session_id, path)
        except FileNotFoundError:
            raise KindFailed(f"the workspace has no file {path}", reason="NO_SUCH_FILE", retryable=False) from None
        except (PathRefused, TooLarge) as error:
            raise KindFailed(f"{path}: {error}", reason="FILE_REFUSED", retryable=False) from None
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = f"{path} is not text: {len(content)} bytes that are not UTF-8"
            raise KindFailed(text, reason="NOT_TEXT", retryable=False) from None

    async def _read(self, organization_id: UUID, session_id: UUID, path: str) -> bytes:
        if self._bucket is not None:
            async with asyncio.timeout(_READ_LIMIT.total_seconds()):
                return await Shelf(self._bucket, organization_id, session_id).read(path, self._max_bytes)
        root = self._workspace_of(session_id)
        read: Awaitable[bytes] = self._pools.blocking(_read, root, path, self._max_bytes, timeout=_READ_LIMIT)
        return await read

    async def count_pages(self, caller: Caller, execution_id: UUID) -> int:
        """How many pages a crawl has, once it has ended. Raises NotFound, KindFailed."""
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant, read=True) as tx:
            crawl = await execution_store.get(tx, organization_id, execution_id, caller.tenant.user_id)
            if crawl.kind != "crawl":
                text = f"{execution_name(execution_id)} is of the kind {crawl.kind}, not crawl"
                raise KindFailed(text, reason="NOT_A_CRAWL", retryable=False)
            if crawl.state is not ExecutionState.SUCCEEDED:
                ended = crawl.state in FINAL
                how = "retry it first" if ended else "wait until it has succeeded"
                text = f"{execution_name(execution_id)} is {crawl.state}: {how}"
                raise KindFailed(text, reason="CRAWL_NOT_DONE", retryable=not ended)
            pages = (await page_store.count(tx, organization_id, execution_id)).states["FETCHED"]
        if not pages:
            text = f"the pages of {execution_name(execution_id)} are not kept any more: crawl again"
            raise KindFailed(text, reason="NO_PAGES", retryable=False)
        return pages

    async def pages(self, caller: Caller, execution_id: UUID, after: int) -> AsyncIterator[tuple[int, Source]]:
        """The pages of a crawl whose number is greater than `after`."""
        while True:
            async with self._database.tenant(caller.tenant, read=True) as tx:
                batch = await page_store.pages(
                    tx,
                    caller.tenant.organization_id,
                    execution_id,
                    after=after,
                    limit=_PAGES_AT_ONCE,
                    state=PageState.FETCHED,
                )
            for page in batch:
                yield page.number, Source(page.url, page.title, "text/markdown", page.markdown)
            if len(batch) < _PAGES_AT_ONCE:
                return
            after = batch[-1].number


def media_type_of(path: str) -> str:
    """By the name's end."""
    return _MEDIA_TYPES.get(Path(path).suffix.lower(), "text/plain")


def _read(root: Path, path: str, limit: int) -> bytes:
    return Workspace(root).read(path, limit)
