"""A `Job` without a server: for tests of kinds. What the kind does with it is there to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

from pydantic import BaseModel

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.events.model import NewEvent
from stationmaster_server.identity.system import system_caller
from stationmaster_server.tasks.model import Progress

P = TypeVar("P", bound=BaseModel)


class RehearsedConversation:
    """A `Conversation` without a server: what the kind said of it."""

    def __init__(self) -> None:
        self.id = uuid4()
        self.session_id: UUID | None = None
        self.turn_id: UUID | None = None
        self.keep = False

    async def open(self, tx: Transaction, session_id: UUID, *, keep: bool) -> None:
        """Note it."""
        self.session_id, self.turn_id, self.keep = session_id, None, keep

    async def begin(self, tx: Transaction, turn_id: UUID) -> None:
        """Note it."""
        self.turn_id = turn_id

    async def leave(self, why: str) -> None:
        """Note it."""
        self.id, self.turn_id = uuid4(), None


class Rehearsal(Generic[P]):
    """One attempt. Give `checkpoint` and a second `attempt` to rehearse what comes after a crash."""

    def __init__(self, payload: P, *, checkpoint: Mapping[str, Any] | None = None, attempt: int = 1) -> None:
        self._payload = payload
        self._checkpoint = checkpoint
        self._attempt = attempt
        self._id = uuid4()
        tenant = Tenant(uuid4(), uuid4())
        self._caller = system_caller(tenant.organization_id, tenant.user_id, request_id="rehearsal")
        self.told: list[Progress] = []
        """What was told by `progress`."""
        self.lines: list[tuple[str, str]] = []
        """What was said by `log`: level and text."""
        self.events: list[NewEvent] = []
        """What was put into the stream by `add`."""
        self._conversation = RehearsedConversation()

    @property
    def payload(self) -> P:
        """What is to be done."""
        return self._payload

    @property
    def execution_id(self) -> UUID:
        """The execution."""
        return self._id

    @property
    def task_id(self) -> str | None:
        """There is none."""
        return None

    @property
    def attempt(self) -> int:
        """1 for the first."""
        return self._attempt

    @property
    def scheduled_for(self) -> datetime | None:
        """No schedule was due."""
        return None

    @property
    def caller(self) -> Caller:
        """Somebody whom no server knows."""
        return self._caller

    @property
    def checkpoint(self) -> Mapping[str, Any] | None:
        """What was given, or saved since."""
        return self._checkpoint

    @property
    def conversation(self) -> RehearsedConversation:
        """The session that it runs in."""
        return self._conversation

    def waiting(self) -> AbstractContextManager[None]:
        """There are no slots."""
        return nullcontext()

    def progress(
        self, fraction: float | None = None, message: str = "", counters: Mapping[str, int] | None = None
    ) -> None:
        """Note it."""
        self.told.append(Progress(fraction, message, dict(counters or {})))

    def log(self, text: str, level: str = "info") -> None:
        """Note it."""
        self.lines.append((level, text))

    def add(self, event: NewEvent) -> None:
        """Note it."""
        self.events.append(event)

    async def drain(self) -> None:
        """Nothing to be waited for."""

    async def save(self, checkpoint: Mapping[str, Any]) -> None:
        """Keep it."""
        self._checkpoint = dict(checkpoint)
