"""Live tails of the trail: one look for all watchers of a server, and each reads what is new from the tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

from stationmaster_server.audit import store, tree_store
from stationmaster_server.audit.model import AuditBatch, AuditEvent
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.identity.model import Tenant
from stationmaster_server.resilience.loops import attempt

PAGE = 200


class _Topic:
    """An organization that somebody here watches."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.watchers = 0
        self.grown = asyncio.Event()

    def grow(self, head: int) -> None:
        """Wake whoever waits for more."""
        if head > self.head:
            self.head = head
            grown, self.grown = self.grown, asyncio.Event()
            grown.set()


class Watches:
    """Knows how far each watched organization has come: told by notifications, checked every second."""

    def __init__(
        self,
        database: Database,
        listener: Listener,
        *,
        keepalive: timedelta = timedelta(seconds=15),
        look: timedelta = timedelta(seconds=1),
    ) -> None:
        self._database = database
        self._keepalive = keepalive.total_seconds()
        self._look = look.total_seconds()
        self._topics: dict[UUID, _Topic] = {}
        self._heard = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        listener.add(tree_store.CHANNEL, self._on_notification)

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="audit watches")

    async def close(self) -> None:
        """End every watch with Unavailable."""
        self._closing = True
        self._heard.set()
        for topic in self._topics.values():
            topic.grown.set()
        if self._task is not None:
            await self._task

    @property
    def watched(self) -> int:
        """How many organizations are watched here."""
        return len(self._topics)

    async def watch(
        self, tenant: Tenant, after: int | None, where_sql: str = "true", args: Sequence[Any] = ()
    ) -> AsyncGenerator[AuditBatch, None]:
        """The events after a sequence (None: from now on) that match, then those to come, without gap or repeat."""
        organization_id = tenant.organization_id
        async with self._database.tenant(tenant, read=True) as tx:
            head = await store.head(tx, organization_id)
        topic = self._topics.setdefault(organization_id, _Topic(head))
        topic.grow(head)
        topic.watchers += 1
        try:
            at = head if after is None else after
            clock = asyncio.get_running_loop().time
            # Who begins with what is new is told at once where that is: his stream may break before there is anything.
            silent_until = clock() + (0 if after is None else self._keepalive)
            while not self._closing:
                grown = topic.grown
                events: list[AuditEvent] = []
                if at < topic.head:
                    last = min(at + PAGE, topic.head)
                    async with self._database.tenant(tenant, read=True) as tx:
                        events = await store.read_after(tx, organization_id, at, last, where_sql, args)
                    at = last
                else:
                    await _wait(grown, silent_until)
                if events or clock() >= silent_until:  # what matches nothing is told of too, by its sequence
                    yield AuditBatch(events, at)
                    silent_until = clock() + self._keepalive
            raise Unavailable(Reason.SERVER_STOPPING, "the server is stopping; watch again after the last sequence")
        finally:
            topic.watchers -= 1
            if not topic.watchers and self._topics.get(organization_id) is topic:
                del self._topics[organization_id]

    def _on_notification(self, payload: str | None) -> None:
        if payload is None or payload == "*" or any(UUID(part) in self._topics for part in payload.split()):
            self._heard.set()

    async def _run(self) -> None:
        while not self._closing:
            try:
                async with asyncio.timeout(self._look):
                    await self._heard.wait()
            except TimeoutError:
                pass
            self._heard.clear()
            if self._topics and not self._closing:
                await attempt("look for new audit events", self._look_once)

    async def _look_once(self) -> None:
        async with self._database.system(autocommit=True) as tx:
            heads = await store.heads(tx, list(self._topics))
        for organization_id, head in heads.items():
            topic = self._topics.get(organization_id)
            if topic is not None:
                topic.grow(head)


async def _wait(grown: asyncio.Event, until: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            await grown.wait()
