"""One attempt at an execution: what its kind uses as `Job`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from stationmaster_server.db.caller import Caller
from stationmaster_server.events.model import NewEvent
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.tasks import attempt_store, events
from stationmaster_server.tasks.attempt_store import Stored
from stationmaster_server.tasks.conversing import RunningConversation
from stationmaster_server.tasks.events import LEVELS, progress_to_json
from stationmaster_server.tasks.model import Progress
from stationmaster_server.tasks.said import Said
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.work import leases
from stationmaster_server.work.run import Run

MAX_BYTES = 1024 * 1024
_PACE = 0.2
"""Seconds between two events of progress: what comes meanwhile is one."""
MAX_COUNTERS = 100


@dataclass(frozen=True, slots=True)
class Begun:
    """What is known of an attempt before it runs."""

    run: Run
    stored: Stored
    caller: Caller


class RunningJob:
    """Implements `kinds.base.Job`."""

    def __init__(self, services: TaskServices, facts: Begun, payload: BaseModel, mask: Mask) -> None:
        self._services = services
        self._run = facts.run
        self._stored = facts.stored
        self._caller = facts.caller
        self._payload = payload
        self.mask = mask
        self._checkpoint = facts.stored.checkpoint
        self._conversation = RunningConversation(services, facts.run, facts.stored, facts.caller)
        self._pending: Progress | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._said = Said(self._write)

    @property
    def payload(self) -> Any:
        """What is to be done."""
        return self._payload

    @property
    def execution_id(self) -> UUID:
        """The execution."""
        return self._run.item.item_id

    @property
    def task_id(self) -> str | None:
        """The task."""
        return self._stored.task_id

    @property
    def attempt(self) -> int:
        """1 for the first."""
        return self._run.attempt

    @property
    def scheduled_for(self) -> datetime | None:
        """The time that the schedule was due at."""
        return self._stored.scheduled_for

    @property
    def caller(self) -> Caller:
        """The system, acting for the owner."""
        return self._caller

    @property
    def checkpoint(self) -> Mapping[str, Any] | None:
        """What an earlier attempt, or this one, left."""
        return self._checkpoint

    @property
    def conversation(self) -> RunningConversation:
        """The session that it runs in."""
        return self._conversation

    def waiting(self) -> AbstractContextManager[None]:
        """Inside, it takes no slot of its server."""
        return self._run.waiting()

    def progress(
        self, fraction: float | None = None, message: str = "", counters: Mapping[str, int] | None = None
    ) -> None:
        """Tell how far it is; what comes faster than five times a second is one event."""
        if fraction is not None:
            fraction = min(max(fraction, 0.0), 1.0)
        kept = dict(list((counters or {}).items())[:MAX_COUNTERS])
        how_far = Progress(fraction, self.mask.text(message)[:1000], kept)
        self._said.check()
        self._run.heartbeat(progress_to_json(how_far))
        if self._timer is None:
            self._said.event(events.progress(how_far))
            self._timer = asyncio.get_running_loop().call_later(_PACE, self._tick)
        else:
            self._pending = how_far

    def log(self, text: str, level: str = "info") -> None:
        """Say something."""
        if level not in LEVELS:
            raise ValueError(f"there is no level {level!r}; there are: {', '.join(sorted(LEVELS))}")
        self._said.check()
        self._run.heartbeat()
        self._said.line(self.mask.text(text), level)

    def add(self, event: NewEvent) -> None:
        """Put an event of another kind into the stream."""
        self._said.check()
        self._run.heartbeat()
        self._said.event(replace(event, body=self.mask.value(event.body)))

    async def drain(self) -> None:
        """Wait until all that was said is durable. Raises LeaseLost, Unavailable."""
        await self._said.drain()
        self._run.heartbeat()

    async def save(self, checkpoint: Mapping[str, Any]) -> None:
        """Leave a checkpoint, when all that was said is durable. Raises LeaseLost, Unavailable."""
        document = dict(checkpoint)
        size = len(json.dumps(document, allow_nan=False))
        if size > MAX_BYTES:
            raise ValueError(f"the checkpoint has {size} bytes; {MAX_BYTES} are allowed")
        await self._said.drain()  # or the next attempt might go on after what nobody was told
        item = self._run.item
        async with self._services.database.system() as tx:
            await leases.hold(tx, self._run)
            await attempt_store.set_checkpoint(tx, item.organization_id, item.item_id, document)
        self._checkpoint = document
        self._run.heartbeat()

    async def flush(self) -> None:
        """Wait until all that was said is durable. Raises LeaseLost, Unavailable."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._write_pending()
        await self._said.drain()
        if (unsaid := self._run.progress) is not None:  # no heartbeat has carried it out
            async with self._services.database.system(autocommit=True) as tx:
                await leases.report(tx, self._run, unsaid)

    def _tick(self) -> None:
        self._timer = None
        if self._pending is not None:
            self._write_pending()
            self._timer = asyncio.get_running_loop().call_later(_PACE, self._tick)

    def _write_pending(self) -> None:
        if self._pending is not None:
            self._said.event(events.progress(self._pending))
            self._pending = None

    def _write(self, event: NewEvent) -> asyncio.Future[int]:
        item = self._run.item
        return self._services.log.write(item.organization_id, item.item_id, event, fence=self._run.lease_token)
