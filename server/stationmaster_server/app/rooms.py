"""The rooms, put on the server: one service each."""

from __future__ import annotations

from contextlib import AsyncExitStack

from stationmaster_server.agents.instructions import Instructions
from stationmaster_server.agents.servicer import AgentServicer
from stationmaster_server.app.agents import build_agents, warm_up
from stationmaster_server.app.audit import build_audit
from stationmaster_server.app.credentials import KEY, build_credentials
from stationmaster_server.app.ground import Ground
from stationmaster_server.app.mcp import build_mcp
from stationmaster_server.app.prompts import build_prompts
from stationmaster_server.app.sessions import build_sessions
from stationmaster_server.app.storage import build_storage
from stationmaster_server.app.storage_watch import STORAGE
from stationmaster_server.app.tasks import build_tasks
from stationmaster_server.app.watchdog import DATABASE
from stationmaster_server.identity import key_store
from stationmaster_server.identity.keys import ApiKeys
from stationmaster_server.identity.quota_settings import QuotaSettings
from stationmaster_server.identity.service import IdentityService
from stationmaster_server.identity.servicer import IdentityServicer
from stationmaster_server.rpc.server import RpcServer
from stationmaster_server.work.run import Handler


async def add_rooms(stack: AsyncExitStack, server: RpcServer, on: Ground) -> dict[str, Handler]:
    """Build every room and add its servicer; return the handlers of the rooms' work, by kind."""
    database, gate, tokens = on.database, on.gate, on.tokens
    outbound = on.outbound
    identity = IdentityServicer(
        IdentityService(database, gate.audit, gate.quotas, outbound),
        ApiKeys(database, gate.audit),
        QuotaSettings(database, gate.audit),
        tokens,
    )
    on.listener.add(key_store.CHANNEL, server.callers_changed)  # after the gate, which forgets what it knew
    audit = await build_audit(stack, on)
    storage = build_storage(stack, on)
    credentials = await build_credentials(stack, on)
    prompts = build_prompts(stack, on)
    mcp = build_mcp(
        stack, on.settings, database, gate, outbound, tokens, on.background, on.metrics, on.board, credentials.using
    )
    agents = build_agents(stack, on.settings, database, gate, mcp, on.metrics, credentials.using, storage.bucket)
    warm_up(stack, on.settings.models, agents)
    sessions = build_sessions(
        on.settings,
        database,
        gate,
        on.engines,
        agents,
        tokens,
        on.background,
        outbound,
        on.embedder,
        Instructions(prompts.rendering, prompts.recorder),
        lambda: server.draining,
    )
    tasks = build_tasks(stack, on, sessions, storage, prompts, outbound, credentials.using, agents.service)
    agent = AgentServicer(agents.service, tokens)
    below = (identity, audit, prompts.servicer, mcp.servicer)
    for servicer in (*below, agent, sessions.servicer, tasks.servicer):
        server.add(servicer, needs=(DATABASE,))
    server.add(storage.servicer, needs=(DATABASE, STORAGE))
    server.add(credentials.servicer, needs=(DATABASE, KEY))
    return sessions.handlers | tasks.handlers
