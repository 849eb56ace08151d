"""The sessions' part, built: the service, the runner of turns, and what looks after both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from stationmaster_server.agents.instructions import Instructions
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime
from stationmaster_server.app.agents import Agents
from stationmaster_server.app.engines import Engines, forgetting
from stationmaster_server.app.storage import WORKSPACES
from stationmaster_server.app.transport import Gate
from stationmaster_server.config import Settings
from stationmaster_server.db.engine import Database
from stationmaster_server.embedding.embedder import Embedder
from stationmaster_server.maintenance.base import Routine
from stationmaster_server.maintenance.model import Scope
from stationmaster_server.maintenance.registry import Registry
from stationmaster_server.maintenance.services.embedding import MessageEmbedding
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.sessions import embeddings, permission_webhook, sweep_store
from stationmaster_server.sessions.abandoned import AbandonedTurns
from stationmaster_server.sessions.idle import IdleSessions
from stationmaster_server.sessions.permissions import Permissions
from stationmaster_server.sessions.runner import TurnRunner
from stationmaster_server.sessions.searching import MessageSearch
from stationmaster_server.sessions.service import SessionService
from stationmaster_server.sessions.servicer import SessionServicer
from stationmaster_server.sessions.turn_services import TurnServices
from stationmaster_server.sessions.turns import KIND, Turns
from stationmaster_server.sessions.watching import Watching
from stationmaster_server.sessions.workspaces import Workspaces
from stationmaster_server.wire.paging import PageTokens
from stationmaster_server.work.run import Handler

_BATCH = 100


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions' servicer, the handlers of the work that it submits, and what other rooms use of it."""

    servicer: SessionServicer
    handlers: dict[str, Handler]
    service: SessionService
    turns: Turns
    watching: Watching
    workspaces: Workspaces


def build_sessions(
    settings: Settings,
    database: Database,
    gate: Gate,
    engines: Engines,
    agents: Agents,
    tokens: PageTokens,
    background: Registry,
    outbound: Outbound,
    embedder: Embedder,
    instructions: Instructions,
    stopping: Callable[[], bool],
) -> Sessions:
    """Build everything about sessions and turns. `stopping`: whether the server ends its streams by itself."""
    services = TurnServices(database, engines.log, engines.queue, gate.audit, gate.quotas, instructions)
    workspaces = Workspaces(settings.data_folder / WORKSPACES)
    workspaces.prepare()
    turns, permissions = Turns(services), Permissions(services)
    service = SessionService(services, turns, agents.service, workspaces, agents.close_session)
    runner = TurnRunner(services, agents.runtimes, agents.prices, workspaces.open)
    idle = IdleSessions(services, default_timeout=settings.sessions.idle_timeout)
    what = "Ends permission requests that nobody answered in time."
    background.add(Routine("permission-expiry", what, timedelta(seconds=1), permissions.expire_due))
    what = "Ends turns that no server will ever end."
    background.add(Routine("turn-recovery", what, timedelta(seconds=5), AbandonedTurns(services).end_all))
    background.add(forgetting(database, settings.work.keep_ended, sweep_store.NEEDED_WORK))
    what = "Pauses sessions that nobody has used for their idle timeout."
    background.add(Routine("session-cleanup", what, timedelta(seconds=30), idle.pause_idle, scope=Scope.ONE_SERVER))
    what = "Closes clients of models that no turn has used for a while."
    background.add(Routine("model-client-eviction", what, timedelta(minutes=1), agents.runtime.evict_idle))
    if agents.claude is not None:
        what = "Ends processes of the Claude runtime that are idle, or whose session has ended."
        background.add(Routine("executor-eviction", what, timedelta(seconds=10), _ending(database, agents.claude)))
    what = "Forgets the Claude runtime's transcripts of sessions that have ended; their messages stay."
    forget = _forgetting(database)
    background.add(Routine("transcript-cleanup", what, timedelta(minutes=10), forget, scope=Scope.ONE_SERVER))
    background.add(MessageEmbedding(embeddings.MessageEmbedding(database, embedder), database))
    watching = Watching(database, engines.log, keepalive=settings.events.keepalive)
    search = MessageSearch(database, embedder)
    servicer = SessionServicer(service, watching, turns, permissions, search, tokens, stopping=stopping)
    webhooks = permission_webhook.PermissionWebhooks(database, outbound)
    handlers: dict[str, Handler] = {KIND: runner, permission_webhook.KIND: webhooks}
    return Sessions(servicer, handlers, service, turns, watching, workspaces)


def _ending(database: Database, claude: ClaudeRuntime) -> Callable[[], Awaitable[None]]:
    """What ends processes which no turn has used for a while, or whose session ended on another server."""

    async def end() -> None:
        await claude.evict_idle()
        if sessions := claude.sessions():
            async with database.system(autocommit=True) as tx:
                ended = await sweep_store.ended_among(tx, sessions)
            for session_id in ended:
                await claude.close_session(session_id)

    return end


def _forgetting(database: Database) -> Callable[[], Awaitable[None]]:
    """What forgets the transcripts of sessions that have ended: their messages stay."""

    async def forget() -> None:
        forgotten = _BATCH
        while forgotten >= _BATCH:  # a transaction each, so that none holds many rows
            async with database.system() as tx:
                forgotten = await sweep_store.forget_transcripts(tx, _BATCH)

    return forget
