"""A server without its transport: engines, rooms, a worker and the demo model, on a database that others may share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from stationmaster_server.agents.model import AgentSpec, RuntimeName
from stationmaster_server.agents.prices import Price, Prices
from stationmaster_server.agents.providers import Providers, ProviderSettings
from stationmaster_server.agents.runtime import Runtime
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime, ClaudeRuntimeSettings
from stationmaster_server.agents.runtimes.model import ModelRuntime
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.agents.tools.source import ToolSource
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.listener import Listener
from stationmaster_server.db.listing import PageRequest
from stationmaster_server.events.bus import PostgresBus
from stationmaster_server.events.log import EventLog, LogSettings
from stationmaster_server.events.model import Event
from stationmaster_server.identity.quotas import Quotas
from stationmaster_server.sessions.model import (
    BusyPolicy,
    Message,
    NewSession,
    PermissionRequest,
    PermissionState,
    RecoveryPolicy,
    Session,
    SessionState,
    Turn,
    TurnState,
)
from stationmaster_server.sessions.permissions import Permissions
from stationmaster_server.sessions.runner import TurnRunner
from stationmaster_server.sessions.service import SessionService
from stationmaster_server.sessions.turn_services import TurnServices
from stationmaster_server.sessions.turns import KIND, SendRequest, Started, Turns
from stationmaster_server.sessions.watching import Watching
from stationmaster_server.sessions.workspaces import Workspaces
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.run import Run
from stationmaster_server.work.worker import Worker, WorkerSettings

from tests.sessions.builders import NO_PROMPTS
from tests.sessions.conftest import OneAgent
from tests.waiting import until

FILES = ("files.*", "math.*", "time.*")
LEASE = timedelta(seconds=1)


@dataclass
class Station:
    """What a test of turns works with."""

    caller: Caller
    database: Database
    services: TurnServices
    sessions: SessionService
    turns: Turns
    permissions: Permissions
    watching: Watching
    worker: Worker
    workspaces: Workspaces
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def create(self, **spec: Any) -> UUID:
        """A session on the demo model, with all tools."""
        made = await self.sessions.create(
            self.caller, NewSession(spec=AgentSpec(**({"model": "demo", "tools": FILES} | spec)))
        )
        return made.id

    async def send(
        self,
        session_id: UUID,
        text: str,
        *,
        busy: BusyPolicy = BusyPolicy.QUEUE,
        recovery: RecoveryPolicy = RecoveryPolicy.DEFAULT,
    ) -> Started:
        """Send a message."""
        return await self.turns.send(self.caller, session_id, SendRequest(text, busy, recovery))

    async def events(
        self, session_id: UUID, started: Started, *, last: str = "turn_finished", seconds: float = 60
    ) -> list[Event]:
        """The events of a turn up to the first of a kind."""
        found: list[Event] = []
        async with (
            asyncio.timeout(seconds),
            aclosing(self.watching.follow(self.caller, session_id, started)) as batches,
        ):
            async for batch in batches:
                for event in batch.events:
                    found.append(event)
                    if event.kind == last:
                        return found
        return found

    async def run(self, session_id: UUID, text: str, **options: Any) -> list[Event]:
        """Send a message and wait for the turn's end."""
        return await self.events(session_id, await self.send(session_id, text, **options))

    async def ended(self, session_id: UUID, started: Started, *, seconds: float = 60) -> Turn:
        """The turn, once it has ended."""
        await self.events(session_id, started, seconds=seconds)
        return await self.turn(session_id, started)

    async def turn(self, session_id: UUID, started: Started) -> Turn:
        """The turn as it stands."""
        return await self.turns.get_turn(self.caller, session_id, started.turn_id)

    async def session(self, session_id: UUID) -> Session:
        """The session as it stands."""
        return await self.sessions.get(self.caller, session_id)

    async def becomes(self, session_id: UUID, state: SessionState) -> None:
        """Wait for a state of the session."""

        async def reached() -> bool:
            return (await self.session(session_id)).state is state

        await until(reached)

    async def running(self, session_id: UUID, started: Started) -> None:
        """Wait until the turn's first words have come."""
        await self.events(session_id, started, last="text_delta")
        assert (await self.turn(session_id, started)).state is TurnState.RUNNING

    async def messages(self, session_id: UUID) -> list[Message]:
        """All messages."""
        page = await self.sessions.list_messages(self.caller, session_id, "", "", PageRequest(1000))
        return page.items

    async def asked(self, session_id: UUID) -> list[PermissionRequest]:
        """The requests that wait, once there are any."""

        async def waiting() -> list[PermissionRequest]:
            page = await self.permissions.list_requests(self.caller, session_id, "", "", PageRequest(100))
            return [request for request in page.items if request.state is PermissionState.PENDING]

        return await until(waiting)

    @property
    def busy(self) -> int:
        """How many items the worker holds."""
        return len(self.worker._held)

    async def kill(self) -> list[Run]:
        """Stop the worker as SIGKILL would: nothing is handed back, nothing more is written. Returns what it ran."""
        worker = self.worker
        if worker._claimer is not None:
            worker._claimer.cancel()
            worker._claimer = None
        await worker._heart.stop()
        await worker._reaper.stop()
        runs = list(worker._held.values())
        for run in runs:
            run.lost = True
            if run.task is not None:
                run.task.cancel()
        await asyncio.gather(*(run.task for run in runs if run.task), return_exceptions=True)
        return runs


@asynccontextmanager
async def open_station(
    database_url: str,
    folder: Path,
    caller: Caller,
    *,
    lease: timedelta = LEASE,
    prices: dict[str, Price] | None = None,
    providers: Sequence[ProviderSettings] = (),
    around: Callable[[Runtime], Runtime] = lambda runtime: runtime,
) -> AsyncIterator[Station]:
    """A started station; several may share the database. `around` may put something around its runtime."""
    async with AsyncExitStack() as stack:
        database = await Database.connect(
            database_url, pool_size=8, system_pool_size=8, connect_timeout=timedelta(minutes=3)
        )
        stack.push_async_callback(database.close)
        listener = Listener(database)
        log = EventLog(database, PostgresBus(listener), LogSettings())
        audit = AuditLog(database)
        quotas = Quotas(database, listener, audit)
        queue = WorkQueue(Notifier(database))
        services = TurnServices(database, log, queue, audit, quotas, NO_PROMPTS)
        await log.start()
        stack.push_async_callback(log.close)
        await audit.start()
        stack.push_async_callback(audit.close)
        workspaces = Workspaces(folder)
        workspaces.prepare()
        price_table = Prices(prices or {"demo": Price(0, 0)})
        reached, source = Providers(providers, price_table), ToolSource(builtin_toolbox())
        runtime = ModelRuntime(reached, source, price_table)
        stack.push_async_callback(runtime.close)
        claude = ClaudeRuntime(
            database, reached, source, price_table, ClaudeRuntimeSettings(folder / "../claude", max_live=6)
        )
        stack.push_async_callback(claude.close)
        turns = Turns(services)
        sessions = SessionService(services, turns, OneAgent(), workspaces, claude.close_session)
        runtimes: dict[RuntimeName, Runtime] = {RuntimeName.MODEL: around(runtime), RuntimeName.CLAUDE: claude}
        runner = TurnRunner(services, runtimes, price_table, workspaces.open)
        worker = Worker(database, queue, {KIND: runner}, WorkerSettings(slots=16, lease=lease), listener=listener)
        await listener.start()
        stack.push_async_callback(listener.stop)
        worker.start()
        stack.push_async_callback(worker.stop, timedelta(seconds=1))
        yield Station(
            caller,
            database,
            services,
            sessions,
            turns,
            Permissions(services),
            Watching(database, log),
            worker,
            workspaces,
        )


def text_of(events: list[Event]) -> str:
    """The text of the deltas."""
    return "".join(event.body["text"] for event in events if event.kind == "text_delta")


def kinds(events: list[Event]) -> list[str]:
    """The kinds, each run of deltas once."""
    found: list[str] = []
    for event in events:
        if not (found and found[-1] == event.kind == "text_delta"):
            found.append(event.kind)
    return found
