"""Sessions: conversations with agents."""

from __future__ import annotations

from typing import Annotated

from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field
from stationmaster.v1 import session_pb2

from stationmaster_client.mcp_server.answer import (
    Answer,
    Limit,
    Paged,
    PageToken,
    RequestId,
    SessionName,
    dollars,
    facts,
    moment,
    plain,
)
from stationmaster_client.mcp_server.caller import Call
from stationmaster_client.mcp_server.tool import changes, reads

DisplayName = Annotated[str, Field(description="A name for people.")]


class Session(Answer):
    """A conversation with an agent or a model."""

    name: str
    display_name: str
    state: str = Field(description="active, processing, awaiting_permission, paused, terminated or archived")
    state_reason: str
    agent: str
    model: str
    tools: list[str]
    labels: dict[str, str]
    message_count: int
    tokens: int
    cost_dollars: float
    current_turn: str = Field(description="the turn that runs, if one does")
    forked_from: str
    created: str
    updated: str

    def text(self) -> str:
        """All that is known."""
        return facts(
            session=self.name,
            display_name=self.display_name,
            state=f"{self.state} ({self.state_reason})" if self.state_reason else self.state,
            agent=self.agent,
            model=self.model,
            tools=", ".join(self.tools),
            labels=", ".join(f"{key}={value}" for key, value in sorted(self.labels.items())),
            messages=self.message_count,
            tokens=self.tokens,
            cost=f"${self.cost_dollars}" if self.cost_dollars else "",
            running_turn=self.current_turn,
            forked_from=self.forked_from,
            created=self.created,
            updated=self.updated,
        )

    def line(self) -> str:
        """The session on one line."""
        title = f" {self.display_name!r}" if self.display_name else ""
        whom = self.agent or self.model
        return f"{self.name}{title}: {self.state}, {whom}, {self.message_count} messages, updated {self.updated}"


class Sessions(Paged):
    """Some sessions."""

    sessions: list[Session]

    def text(self) -> str:
        """One line each."""
        return self.more((session.line() for session in self.sessions), "No sessions. create_session makes one.")


def convert(session: session_pb2.Session) -> Session:
    """A session as tools show it."""
    return Session(
        name=session.name,
        display_name=session.display_name,
        state=plain(session_pb2.SessionState.Name(session.state), "SESSION_STATE"),
        state_reason=session.state_reason,
        agent=session.agent,
        model=session.spec.model,
        tools=list(session.spec.tools),
        labels=dict(session.labels),
        message_count=session.message_count,
        tokens=session.usage.input_tokens + session.usage.output_tokens,
        cost_dollars=dollars(session.usage.cost_micros),
        current_turn=session.current_turn,
        forked_from=session.parent_message or session.parent_session,
        created=moment(session.create_time),
        updated=moment(session.update_time),
    )


@reads("List sessions")
async def list_sessions(
    call: Call,
    filter: Annotated[  # noqa: A002 - as in the API
        str, Field(description='Which, e.g. state = ACTIVE AND agent = "agents/helper"; empty: all.')
    ] = "",
    order_by: Annotated[str, Field(description="update_time desc, create_time, display_name ...")] = "update_time desc",
    archived: Annotated[bool, Field(description="Archived ones, too.")] = False,
    limit: Limit = 20,
    page_token: PageToken = "",
) -> Sessions:
    """List your conversations with agents (sessions), the last used first."""
    listing = call.client.sessions.list(filter=filter, order_by=order_by, show_archived=archived, page_size=limit)
    page = await listing.page(page_token)
    return Sessions(sessions=[convert(item) for item in page.sessions], next_page_token=page.next_page_token)


@reads("Show a session")
async def get_session(call: Call, session: SessionName) -> Session:
    """Show one session: its state, agent, model, tools, use, and the turn that runs."""
    return convert(await call.client.sessions.get(session))


@changes("Begin a session")
async def create_session(
    call: Call,
    agent: Annotated[str, Field(description="Whom to talk to, from list_agents; or else give model.")] = "",
    model: Annotated[str, Field(description="A model without an agent, from list_models.")] = "",
    tools: Annotated[
        list[str], Field(description="With model: tools that it may use, or patterns such as files.*.", max_length=200)
    ] = [],  # noqa: B006 - never changed; shows as the default in the schema
    display_name: DisplayName = "",
    labels: Annotated[dict[str, str], Field(description="Labels to find it by.", max_length=64)] = {},  # noqa: B006
    request_id: RequestId = "",
) -> Session:
    """Begin a conversation (session) with an agent, or with a model. Then call send_message."""
    if bool(agent) == bool(model):
        raise ToolError("give either agent or model (list_agents, list_models)")
    return convert(
        await call.client.sessions.create(
            agent, model=model, tools=tools, display_name=display_name, labels=labels, request_id=request_id
        )
    )


@changes("Fork a session")
async def fork_session(
    call: Call,
    session: SessionName,
    up_to_message: Annotated[int, Field(ge=0, description="Number of the last message to copy; 0: all.")] = 0,
    display_name: DisplayName = "",
) -> Session:
    """Make a new session from the messages of another, all or up to one, to go on differently from there."""
    message = f"sessions/{session.removeprefix('sessions/')}/messages/{up_to_message}" if up_to_message else ""
    return convert(await call.client.sessions.fork(session, up_to_message=message, display_name=display_name))


@changes("Resume a session", idempotent=True)
async def resume_session(call: Call, session: SessionName) -> Session:
    """Let a paused session take messages again. Sessions are also paused when nobody used them for long."""
    return convert(await call.client.sessions.resume(session))


@changes("Terminate a session", destructive=True, idempotent=True)
async def terminate_session(
    call: Call,
    session: SessionName,
    reason: Annotated[str, Field(description="Why, for people.", max_length=1000)] = "",
) -> Session:
    """End a session for good, with the turn that runs in it. It can still be read and forked."""
    return convert(await call.client.sessions.terminate(session, reason))
