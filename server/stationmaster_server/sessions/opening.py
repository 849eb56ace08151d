"""Sessions that are about to be: new ones, and forks of others."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from stationmaster_server.agents.model import AgentSpec
from stationmaster_server.agents.runtime import ToolCall, Usage
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import InvalidArgument, NotFound
from stationmaster_server.sessions import store_messages
from stationmaster_server.sessions.model import Message, NewSession, Session, SessionState, message_name


def with_variables(spec: AgentSpec, values: str) -> AgentSpec:
    """The specification with a session's values for its prompt over its own."""
    given = json.loads(values)
    if not given:
        return spec
    if not spec.prompt:
        raise InvalidArgument.field("session.prompt_variables", "its instructions come from no prompt: leave them out")
    merged = {**json.loads(spec.prompt_variables), **given}
    return replace(spec, prompt_variables=json.dumps(merged, sort_keys=True))


def opened(session_id: UUID, user_id: UUID, new: NewSession, spec: AgentSpec) -> Session:
    """The session that was asked for; the database gives it its times."""
    now = datetime.now(UTC)
    return Session(
        id=session_id,
        user_id=user_id,
        display_name=new.display_name,
        state=SessionState.ACTIVE,
        state_reason="",
        agent_id=new.agent_id,
        spec=spec,
        tool_policies=new.tool_policies,
        limits=new.limits,
        labels=dict(new.labels or {}),
        idle_timeout=new.idle_timeout,
        parent_session_id=None,
        parent_message=None,
        granted_tools=(),
        portions={},
        usage=Usage(),
        message_count=0,
        last_sequence=0,
        current_turn_id=None,
        etag="",
        created_at=now,
        updated_at=now,
    )


def forked(session_id: UUID, user_id: UUID, parent: Session, point: int, display_name: str) -> Session:
    """The user's own session made from another; permissions granted for that one alone do not go with it."""
    new = NewSession(
        display_name=display_name or parent.display_name,
        agent_id=parent.agent_id,
        spec=parent.spec,
        tool_policies=parent.tool_policies,
        limits=parent.limits,
        labels=parent.labels,
        idle_timeout=parent.idle_timeout,
    )
    child = opened(session_id, user_id, new, parent.spec)
    return replace(child, parent_session_id=parent.id, parent_message=point)


async def fork_point(tx: Transaction, organization_id: UUID, session_id: UUID, up_to: int | None) -> int:
    """The number of the last message to copy; 0 when there is none.

    A tool call is not parted from its result: a point between the two is InvalidArgument when it was named, and the
    message before the call when it is where the session happens to be.
    """
    if up_to is None:
        newest = await store_messages.last_message(tx, organization_id, session_id)
        if newest is None:
            return 0
        return newest.number - 1 if _asks_for_tools(newest) else newest.number
    message = await store_messages.get_message(tx, organization_id, session_id, up_to)
    if message is None:
        raise NotFound("message", message_name(session_id, up_to))
    if _asks_for_tools(message):
        raise InvalidArgument.field(
            "up_to_message", f"message {up_to} asks for tools, whose results come after it: name one before or after"
        )
    return up_to


def _asks_for_tools(message: Message) -> bool:
    return any(isinstance(part, ToolCall) for part in message.parts)
