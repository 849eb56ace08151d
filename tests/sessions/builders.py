"""Sessions, messages and callers as tests need them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from stationmaster_server.agents.instructions import Instructions
from stationmaster_server.agents.model import AgentSpec
from stationmaster_server.agents.runtime import Part, Text, ToolCall, ToolResult
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import RequestKey, Tenant
from stationmaster_server.errors import NotFound
from stationmaster_server.prompts.model import Rendered, RenderRequest, Selection
from stationmaster_server.sessions import events, store, store_messages
from stationmaster_server.sessions.model import Message, MessageRole, NewSession, Session
from stationmaster_server.sessions.opening import opened

SPEC = AgentSpec(model="demo")
ROLES = {"u": MessageRole.USER, "a": MessageRole.ASSISTANT, "c": MessageRole.ASSISTANT, "t": MessageRole.TOOL}


def make_caller(tenant: Tenant, role: Role = Role.MEMBER) -> Caller:
    """Somebody who may do what the role may."""
    return Caller(tenant, role, frozenset({"*"}), None, "api_key:test", "request", "peer", "Method")


def repeating(caller: Caller, fingerprint: bytes = b"one") -> Caller:
    """The caller with a request id."""
    return replace(caller, request_key=RequestKey(new_id(), "Method", fingerprint))


def colleague(tenant: Tenant) -> Tenant:
    """Another user of the organization."""
    return Tenant(tenant.organization_id, new_id())


async def insert(database: Database, tenant: Tenant, **fields: Any) -> Session:
    """A session, straight into the table."""
    session = replace(opened(new_id(), tenant.user_id, NewSession(), SPEC), **fields)
    async with database.system() as tx:
        return await store.insert_session(tx, tenant.organization_id, session, events.session_created())


def message(session_id: UUID, role: MessageRole, *parts: Part, turn_id: UUID | None = None) -> Message:
    """A message without a number."""
    return Message(session_id, 0, turn_id, role, parts, datetime.now(UTC))


async def add(database: Database, tenant: Tenant, *messages: Message) -> list[Message]:
    """Append messages."""
    async with database.system() as tx:
        return [await store_messages.append_message(tx, tenant.organization_id, each) for each in messages]


async def converse(database: Database, tenant: Tenant, session_id: UUID, script: str) -> list[Message]:
    """Append a conversation: `u` a question, `a` an answer, `c` an answer that calls a tool, `t` the tool's result."""
    parts: dict[str, Part] = {
        "u": Text("question"),
        "a": Text("answer"),
        "c": ToolCall("call", "files.list", {"path": "."}),
        "t": ToolResult("call", "files.list", "a.txt"),
    }
    return await add(database, tenant, *(message(session_id, ROLES[sign], parts[sign]) for sign in script))


class NoPrompts:
    """Prompts, of which there are none."""

    async def render(self, tenant: Tenant, request: RenderRequest) -> Rendered:
        """It is not there."""
        raise NotFound("Prompt", f"prompts/{request.prompt_id}")


class NoRecord:
    """Nothing is noted."""

    def used(self, organization_id: UUID, selection: Selection, **figures: int) -> None:
        """Forgotten."""


NO_PROMPTS = Instructions(NoPrompts(), NoRecord())
"""What fills in the prompts of specifications where there are none."""
