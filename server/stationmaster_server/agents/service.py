"""Agents: the rules."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from stationmaster_server.agents import store
from stationmaster_server.agents.model import Agent, AgentSpec, ModelInfo, NewAgent, RuntimeName
from stationmaster_server.agents.providers import Protocol, Providers
from stationmaster_server.agents.spec_json import spec_to_json
from stationmaster_server.agents.tools.mcp import EVERY
from stationmaster_server.agents.tools.toolbox import Toolbox
from stationmaster_server.audit.service import AuditLog
from stationmaster_server.credentials.grants import revoke_all
from stationmaster_server.credentials.rights import require_naming
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.listing import Field, Listing, Page, PageRequest
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.requests import recall, remember
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PreconditionViolation,
    Reason,
    require_etag,
)
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.mcp.registry import Registry
from stationmaster_server.prompts import availability

LISTING = Listing(
    {
        "agent_id": Field("a.agent_id", str),
        "display_name": Field("a.display_name", str),
        "model": Field("a.model", str),
        "create_time": Field("a.created_at", datetime),
        "update_time": Field("a.updated_at", datetime),
    },
    key="a.agent_id",
    key_type=str,
    default_order="create_time desc",
)
UPDATABLE = frozenset({"display_name", "description", "spec"})

SessionsUsing = Callable[[Transaction, Caller, str], Awaitable[int]]

_PROVIDER_FILTER = re.compile(r"""\s*(?:provider\s*[=:]\s*)?["']?([A-Za-z0-9_.-]+)["']?\s*""")
_NEEDS = {
    RuntimeName.MODEL: "pip install 'stationmaster[server]'",
    RuntimeName.CLAUDE: "pip install 'stationmaster[server,claude]'; models.claude.enabled; storage.place = local",
}


@dataclass(frozen=True, slots=True)
class _Deleted:
    """What is remembered of a deletion."""

    agent_id: str


class AgentService:
    """Agents of an organization, and the models they may name.

    `sessions_using` counts the sessions that are not terminated and name an agent: sessions stand above agents.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        providers: Providers,
        runtimes: Set[RuntimeName],
        sessions_using: SessionsUsing,
        toolbox: Toolbox,
        registry: Registry,
    ) -> None:
        self._database = database
        self._registry = registry
        self._audit = audit
        self._providers = providers
        self._runtimes = runtimes
        self._sessions_using = sessions_using
        self._toolbox = toolbox
        self._models: list[ModelInfo] | None = None  # read once: they follow from the settings

    async def create(self, caller: Caller, new: NewAgent, *, validate_only: bool = False) -> Agent:
        """Creates an agent. Raises AlreadyExists, FailedPrecondition(MODEL_UNAVAILABLE, RUNTIME_UNAVAILABLE)."""
        now, uid = datetime.now(UTC), new_id()
        agent = Agent(new.agent_id, uid, new.display_name, new.description, new.spec, "", now, now)
        agent = replace(agent, etag=_etag(agent, str(uid)))
        tenant = caller.tenant
        if validate_only:
            require_naming(caller, new.spec.credential)
            self.check(new.spec)
            await self._require_free(caller, agent)
            return agent
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Agent)
            if again is not None:
                return again
            require_naming(caller, new.spec.credential)
            self.check(new.spec)
            await self.check_prompt(tx, tenant.organization_id, new.spec)
            agent = await store.insert(tx, tenant.organization_id, agent)
            await self._write_audit(tx, caller, "agent.create", agent.agent_id, {"model": agent.spec.model})
            await remember(tx, tenant, caller.request_key, agent)
            return agent

    async def get(self, caller: Caller, agent_id: str) -> Agent:
        """One agent. Raises NotFound."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return _found(await store.get(tx, caller.tenant.organization_id, agent_id), agent_id)

    async def list(self, caller: Caller, filter_text: str, order_by: str, page: PageRequest) -> Page[Agent]:
        """A page of agents, newest first by default. Raises InvalidArgument."""
        clause = LISTING.sql(filter_text, order_by, page, start=2)
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await store.list_agents(tx, caller.tenant.organization_id, clause)

    async def update(
        self, caller: Caller, agent_id: str, changes: dict[str, Any], etag: str = "", *, validate_only: bool = False
    ) -> Agent:
        """Changes fields, by their names in `Agent`. Sessions keep the specification they started with.

        Raises:
            NotFound, Aborted(ETAG_MISMATCH), FailedPrecondition(MODEL_UNAVAILABLE, RUNTIME_UNAVAILABLE).
        """
        tenant = caller.tenant
        if validate_only:
            self._check_change(caller, changes)
            async with self._database.tenant(tenant, read=True) as tx:
                agent = _found(await store.get(tx, tenant.organization_id, agent_id), agent_id)
                changed = _changed(agent, changes, etag)
                await self.check_prompt(tx, tenant.organization_id, changed.spec)
            return changed
        async with self._database.tenant(tenant) as tx:
            again = await recall(tx, tenant, caller.request_key, Agent)
            if again is not None:
                return again
            self._check_change(caller, changes)
            before = _found(await store.lock(tx, tenant.organization_id, agent_id), agent_id)
            agent = _changed(before, changes, etag)
            if "spec" in changes:
                await self.check_prompt(tx, tenant.organization_id, agent.spec)
            if _asks(agent) != _asks(before):  # what was granted to it was granted for where it went
                await revoke_all(tx, self._audit, caller, f"agents/{agent_id}")
            agent = await store.update(tx, tenant.organization_id, agent)
            details = {"paths": sorted(changes), "model": agent.spec.model}
            await self._write_audit(tx, caller, "agent.update", agent_id, details)
            await remember(tx, tenant, caller.request_key, agent)
            return agent

    async def delete(self, caller: Caller, agent_id: str, etag: str = "", *, force: bool = False) -> None:
        """Deletes an agent, and what it was granted.

        Raises NotFound, Aborted(ETAG_MISMATCH), FailedPrecondition(AGENT_IN_USE).
        """
        tenant = caller.tenant
        async with self._database.tenant(tenant) as tx:
            if await recall(tx, tenant, caller.request_key, _Deleted) is not None:
                return
            agent = _found(await store.lock(tx, tenant.organization_id, agent_id), agent_id)
            require_etag(f"agents/{agent_id}", agent.etag, etag)
            used_by = await self._sessions_using(tx, caller, agent_id)
            if used_by and not force:
                raise _in_use(agent_id, used_by)
            await store.delete(tx, tenant.organization_id, agent_id)
            await revoke_all(tx, self._audit, caller, f"agents/{agent_id}")
            await self._write_audit(tx, caller, "agent.delete", agent_id, {"sessions": used_by})
            await remember(tx, tenant, caller.request_key, _Deleted(agent_id))

    async def list_models(self, filter_text: str, page: PageRequest) -> Page[ModelInfo]:
        """A page of the models that this server knows, by provider and id. Raises InvalidArgument(INVALID_FILTER)."""
        provider = _provider_in(filter_text)
        if self._models is None:
            self._models = await asyncio.to_thread(self._providers.models)
        left = [
            model
            for model in self._models
            if provider in ("", model.provider) and (page.after is None or _key(model) > page.after)
        ]
        shown = left[: page.size]
        return Page(shown, _key(shown[-1]) if len(left) > page.size else None)

    async def resolve(self, tx: Transaction, organization_id: UUID, agent_id: str) -> AgentSpec:
        """The specification of an agent as it is now, for a session that begins.

        Raises:
            NotFound, FailedPrecondition(MODEL_UNAVAILABLE, RUNTIME_UNAVAILABLE, PROMPT_MISSING).
        """
        agent = _found(await store.get(tx, organization_id, agent_id), agent_id)
        self.check(agent.spec)
        await self.check_prompt(tx, organization_id, agent.spec)
        return agent.spec

    async def find(self, caller: Caller, agent_id: str) -> AgentSpec:
        """As `resolve`, by itself."""
        async with self._database.tenant(caller.tenant, read=True) as tx:
            return await self.resolve(tx, caller.tenant.organization_id, agent_id)

    def check(self, spec: AgentSpec) -> None:
        """Whether this server can run it. Raises FailedPrecondition(MODEL_UNAVAILABLE, RUNTIME_UNAVAILABLE)."""
        if spec.runtime not in self._runtimes:
            why = f"runtime {spec.runtime} is not installed on this server, or turned off: {_NEEDS[spec.runtime]}"
            raise _cannot_run("RUNTIME", spec.runtime.value, why)
        if spec.memory.summarize:
            raise _cannot_run("MEMORY", "summarize", "this server writes no summaries yet: leave memory.summarize out")
        for pattern in spec.tools:
            if not self._toolbox.offered((pattern,)) and not _of_a_server(pattern, spec):
                there_are = ", ".join(self._toolbox.names)
                raise _cannot_run(
                    "TOOL", pattern, f"no tool of this server is called {pattern}; there are: {there_are}"
                )
        self._providers.check(spec.model, own_key=bool(spec.credential))
        if spec.runtime is RuntimeName.CLAUDE:
            self._check_claude(spec)

    async def check_prompt(self, tx: Transaction, organization_id: UUID, spec: AgentSpec) -> None:
        """Whether the prompt that is named is there. Raises InvalidArgument, FailedPrecondition(PROMPT_MISSING)."""
        if spec.prompt:
            await availability.require(tx, organization_id, spec.prompt, "spec.prompt")

    async def check_servers(self, tx: Transaction, tenant: Tenant, spec: AgentSpec) -> None:
        """Whether whose session it is has the MCP servers that are named. Raises FailedPrecondition.

        Not asked of agents: they are the organization's, and their users have servers of their own.
        """
        named = [name.removeprefix("mcpServers/") for name in spec.mcp_servers if name != EVERY]
        unknown = await self._registry.unknown(tx, tenant, named) if named else []
        if unknown:
            name = f"mcpServers/{unknown[0]}"
            why = f"{name} is not registered for this user or organization: register it, or take it out of mcp_servers"
            raise _cannot_run("MCP_SERVER", name, why)

    def _check_claude(self, spec: AgentSpec) -> None:
        if not self._providers.speaks(spec.model, Protocol.ANTHROPIC, own_key=bool(spec.credential)):
            why = f"runtime CLAUDE runs models of the provider anthropic, not {spec.model}"
            raise _cannot_run("RUNTIME", spec.runtime.value, why)
        if spec.temperature is not None:
            raise _cannot_run("RUNTIME", spec.runtime.value, "runtime CLAUDE takes no temperature: leave it out")

    def _check_change(self, caller: Caller, changes: dict[str, Any]) -> None:
        if "spec" in changes:
            require_naming(caller, changes["spec"].credential)
            self.check(changes["spec"])

    async def _require_free(self, caller: Caller, agent: Agent) -> None:
        organization_id = caller.tenant.organization_id
        async with self._database.tenant(caller.tenant, read=True) as tx:
            if await store.get(tx, organization_id, agent.agent_id) is not None:
                raise AlreadyExists("Agent", f"agents/{agent.agent_id}")
            await self.check_prompt(tx, organization_id, agent.spec)

    async def _write_audit(
        self, tx: Transaction, caller: Caller, action: str, agent_id: str, details: dict[str, Any]
    ) -> None:
        await self._audit.write(tx, caller, AuditEntry(action, f"agents/{agent_id}", details=details))


def _found(agent: Agent | None, agent_id: str) -> Agent:
    if agent is None:
        raise NotFound("Agent", f"agents/{agent_id}")
    return agent


def _changed(agent: Agent, changes: dict[str, Any], etag: str) -> Agent:
    require_etag(f"agents/{agent.agent_id}", agent.etag, etag)
    changed = replace(agent, **changes)
    return replace(changed, etag=_etag(changed, agent.etag))


def _etag(agent: Agent, before: str) -> str:
    """A hash of the content and the etag before it: an agent that is changed back has another one."""
    content = json.dumps([before, agent.display_name, agent.description, spec_to_json(agent.spec)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _in_use(agent_id: str, used_by: int) -> FailedPrecondition:
    advice = f"{used_by} sessions are not terminated; terminate them, or delete with force"
    violation = PreconditionViolation("AGENT", f"agents/{agent_id}", advice)
    return FailedPrecondition(Reason.AGENT_IN_USE, f"agents/{agent_id} is in use: {advice}", violation)


def _cannot_run(kind: str, subject: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.RUNTIME_UNAVAILABLE, why, PreconditionViolation(kind, subject, why))


def _of_a_server(pattern: str, spec: AgentSpec) -> bool:
    """Whether a pattern is about tools of an MCP server that the specification names; only that server knows them."""
    server, dot, _ = pattern.partition(".")
    named = {name.removeprefix("mcpServers/") for name in spec.mcp_servers}
    return bool(dot) and (server in named or "*" in named)


def _asks(agent: Agent) -> tuple[str, str]:
    """Whom the agent's key goes to."""
    return agent.spec.runtime.value, agent.spec.model.partition(":")[0]


def _key(model: ModelInfo) -> tuple[str, str]:
    return model.provider, model.model_id


def _provider_in(filter_text: str) -> str:
    if not filter_text.strip():
        return ""
    match = _PROVIDER_FILTER.fullmatch(filter_text)
    if match is None:
        raise InvalidArgument.field("filter", 'expected a provider: provider = "anthropic"', Reason.INVALID_FILTER)
    return match[1]
