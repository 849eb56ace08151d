"""What the modules of turns share: built once by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from stationmaster_server.agents.instructions import Instructions
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.events.log import EventLog
from stationmaster_server.identity.model import ToolPolicy
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.sessions.model import Message, Session, Turn
from stationmaster_server.work.queue import WorkQueue

First = Callable[[Transaction, UUID], Awaitable[None]]
"""What is done first in the transaction that makes a session, or begins a turn, of this id: both hold, or neither."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A turn that its message has begun already, for the worker of the same server: it need not read it again."""

    caller: Caller
    session: Session
    turn: Turn
    history: Sequence[Message]
    above: tuple[ToolPolicy, ...]
    """The rules about tools of the session's owner and of the organization."""


@dataclass(frozen=True, slots=True)
class TurnServices:
    """The engines that turns stand on."""

    database: Database
    log: EventLog
    queue: WorkQueue
    audit: AuditLog
    quotas: Quotas
    instructions: Instructions
    prepared: dict[UUID, Prepared] = field(default_factory=dict)
    """By turn: from the commit of a message to the moment that this server's worker takes it up."""
