"""A server's sessions on a fresh database, without its transport: real engines, real tables, no model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from stationmaster_server.agents.model import AgentSpec
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, NotFound, Reason
from stationmaster_server.events.bus import PostgresBus
from stationmaster_server.events.log import EventLog, LogSettings
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.sessions.service import SessionService
from stationmaster_server.sessions.turn_services import TurnServices
from stationmaster_server.sessions.turns import Turns
from stationmaster_server.sessions.watching import Watching
from stationmaster_server.sessions.workspaces import Workspaces
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue

from tests.sessions.builders import NO_PROMPTS, make_caller


class OneAgent:
    """Agents, of which there is `helper`; the model `unknown` cannot be run."""

    async def resolve(self, tx: Transaction, organization_id: UUID, agent_id: str) -> AgentSpec:
        """The specification of `helper`."""
        if agent_id != "helper":
            raise NotFound("agent", f"agents/{agent_id}")
        return AgentSpec(model="demo", instructions="help")

    def check(self, spec: AgentSpec) -> None:
        """Refuse the model `unknown`."""
        if spec.model == "unknown":
            raise FailedPrecondition(Reason.MODEL_UNAVAILABLE, "the model unknown is not available")

    async def check_prompt(self, tx: Transaction, organization_id: UUID, spec: AgentSpec) -> None:
        """There are those that are named."""

    async def check_servers(self, tx: Transaction, tenant: Tenant, spec: AgentSpec) -> None:
        """There are those that are named."""


@dataclass
class Rooms:
    """What a test of sessions works with."""

    database: Database
    services: TurnServices
    sessions: SessionService
    turns: Turns
    watching: Watching
    workspaces: Path
    closed: list[UUID] = field(default_factory=list)
    """The sessions whose executors were closed."""


@pytest_asyncio.fixture
async def rooms(database: Database, tmp_path: Path) -> AsyncIterator[Rooms]:
    """The rooms, started."""
    async with AsyncExitStack() as stack:
        listener = Listener(database)
        log = EventLog(database, PostgresBus(listener), LogSettings(look=timedelta(seconds=60)))
        audit = AuditLog(database)
        quotas, queue = Quotas(database, listener, audit), WorkQueue(Notifier(database))
        services = TurnServices(database, log, queue, audit, quotas, NO_PROMPTS)
        await listener.start()
        stack.push_async_callback(listener.stop)
        await log.start()
        stack.push_async_callback(log.close)
        await audit.start()
        stack.push_async_callback(audit.close)
        workspaces = Workspaces(tmp_path / "workspaces")
        workspaces.prepare()
        closed: list[UUID] = []

        async def close_executors(session_id: UUID) -> None:
            closed.append(session_id)

        turns = Turns(services)
        sessions = SessionService(services, turns, OneAgent(), workspaces, close_executors)
        yield Rooms(database, services, sessions, turns, Watching(database, log), tmp_path / "workspaces", closed)


@pytest.fixture
def caller(tenant: Tenant) -> Caller:
    """A member, who has nothing yet."""
    return make_caller(tenant)
