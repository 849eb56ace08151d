"""The kind `prompt`: a text is sent to an agent in a session of its own; the answer is the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, ClassVar, Protocol, Self
from uuid import UUID, uuid5

from pydantic import BaseModel, Field, model_validator

from stationmaster_server.agents.model import AgentSpec
from stationmaster_server.agents.runtime import Text
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.listing import Page, PageRequest
from stationmaster_server.db.model import RequestKey, Tenant
from stationmaster_server.errors import FailedPrecondition, FieldViolation, InvalidArgument, NotFound
from stationmaster_server.events.model import Batch, Event
from stationmaster_server.identity.roles import require_scopes
from stationmaster_server.prompts.availability import reference_of
from stationmaster_server.prompts.model import Rendered, RenderRequest
from stationmaster_server.sessions.model import Message, NewSession, Session, Turn, TurnState, session_name
from stationmaster_server.sessions.turn_services import First
from stationmaster_server.sessions.turns import SendRequest, Started
from stationmaster_server.tasks.events import message_added
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Later, Payload
from stationmaster_server.tasks.model import Execution
from stationmaster_server.tasks.reports.model import Section
from stationmaster_server.templating.templates import is_template

_REFERENCE = r"^((prompts/)?[a-z][a-z0-9-]{0,62}((@|/versions/)[1-9][0-9]{0,8}|@[a-z][a-z0-9_.-]{0,62})?)?$"
_LOOK_AGAIN = timedelta(seconds=5)
"""For the answer of a person: nobody holds a worker meanwhile."""
_TURN_COMES = timedelta(seconds=1)


class PromptPayload(Payload):
    """What is sent to whom: either an agent by its name, or a model and what it is told."""

    prompt: Annotated[str, Field(max_length=200_000)] = ""
    """What is sent, unless it comes from a prompt."""
    prompt_from: Annotated[str, Field(pattern=_REFERENCE)] = ""
    """What is sent, from a prompt: `id`, `id@label` or `id@version`."""
    prompt_variables: Annotated[dict[str, Any], Field(default_factory=dict)]
    """The variables of `prompt_from`."""
    agent: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")] = ""
    """Who answers: an agent of the organization, unless there is a `model`."""
    model: Annotated[str, Field(max_length=200)] = ""
    """Who answers: a model, with what follows."""
    instructions: Annotated[str, Field(max_length=100_000)] = ""
    """For the model: what it is and how it answers."""
    instructions_from: Annotated[str, Field(pattern=_REFERENCE)] = ""
    """The same from a prompt: `id`, `id@label` or `id@version`."""
    instructions_variables: Annotated[dict[str, Any], Field(default_factory=dict)]
    """The variables of the prompt that the instructions come from, the agent's too."""
    tools: Annotated[tuple[str, ...], Field(max_length=200)] = ()
    """Which the model may use."""
    mcp_servers: Annotated[tuple[str, ...], Field(max_length=50)] = ()
    """Whose tools the model may use."""
    keep_session: bool = False
    """Do not terminate the session at the end. A turn that is not over when the execution is ends all the same."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.agent) == bool(self.model):
            raise ValueError("write either `agent` or `model`")
        if self.agent and (self.instructions or self.instructions_from or self.tools or self.mcp_servers):
            raise ValueError("`instructions`, `tools` and `mcp_servers` go with `model`; the agent has its own")
        if bool(self.prompt) == bool(self.prompt_from):
            raise ValueError("write either `prompt` or `prompt_from`")
        if self.instructions and self.instructions_from:
            raise ValueError("write either `instructions` or `instructions_from`")
        return self


class Sessions(Protocol):
    """What is needed of sessions; `sessions.service.SessionService` is the one there is."""

    async def create(self, caller: Caller, new: NewSession, *, first: First | None = None) -> Session:
        """Create a session."""
        ...

    async def list_messages(
        self, caller: Caller, session_id: UUID, filter_text: str, order_by: str, page: PageRequest
    ) -> Page[Message]:
        """A page of a session's messages."""
        ...


class Turns(Protocol):
    """What is needed of turns; `sessions.turns.Turns` is the one there is."""

    async def send(
        self, caller: Caller, session_id: UUID, request: SendRequest, *, first: First | None = None
    ) -> Started:
        """Start a turn."""
        ...

    async def get_turn(self, caller: Caller, session_id: UUID, turn_id: UUID) -> Turn:
        """One turn."""
        ...


class Watching(Protocol):
    """What is needed to follow a turn; `sessions.watching.Watching` is the one there is."""

    def follow(
        self, caller: Caller, session_id: UUID, started: Started, *, stop_at_permission: bool = False
    ) -> AsyncGenerator[Batch, None]:
        """The events of a turn."""
        ...


class Prompts(Protocol):
    """What fills prompts in; `prompts.rendering.Rendering` is the one there is."""

    async def render(self, tenant: Tenant, request: RenderRequest) -> Rendered:
        """A prompt filled in."""
        ...


class PromptKind:
    """Sends a prompt, tells of every message, and ends with the last one.

    Session and turn are made once for each conversation: after a crash the attempt finds them again.
    """

    name: ClassVar[str] = "prompt"
    payload: ClassVar[type[BaseModel]] = PromptPayload

    def __init__(
        self,
        sessions: Sessions,
        turns: Turns,
        watching: Watching,
        prompts: Prompts,
        check: Callable[[AgentSpec], None],
        find_agent: Callable[[Caller, str], Awaitable[object]],
        *,
        at_once: int,
    ) -> None:
        """`at_once`: how many may wait for their turns on a server. They take no slots, but memory and sessions.

        `check` raises FailedPrecondition for a specification that this server cannot run; `find_agent` for an agent
        that it cannot, and NotFound.
        """
        self._prompts = prompts
        self._check = check
        self._find_agent = find_agent
        self._sessions = sessions
        self._turns = turns
        self._watching = watching
        self._at_once = at_once
        self._running = 0

    def admit(self, caller: Caller, payload: Mapping[str, Any]) -> None:
        """Who submits a prompt needs what it takes to talk to an agent, and names a model and tools that there are.

        Raises PermissionDenied(SCOPE_MISSING), FailedPrecondition(MODEL_UNAVAILABLE, RUNTIME_UNAVAILABLE).
        """
        require_scopes(caller, frozenset({"sessions.read", "sessions.write"}), "send a prompt")
        model = payload.get("model")
        if isinstance(model, str) and model and not is_template(model):
            tools, servers = _texts(payload, "tools"), _texts(payload, "mcp_servers")
            written = tuple(one for one in tools if not is_template(one))
            # A template may become any server, whose tools only it knows.
            self._check(
                AgentSpec(model, tools=written, mcp_servers=("*",) if any(map(is_template, servers)) else servers)
            )

    async def faults(self, caller: Caller, payload: Mapping[str, Any]) -> Sequence[FieldViolation]:
        """An agent that is not there, or cannot run here."""
        agent = payload.get("agent")
        if not isinstance(agent, str) or not agent or is_template(agent):
            return ()
        try:
            await self._find_agent(caller, agent)
        except NotFound:
            return (
                FieldViolation(
                    "agent", f"there is no agent {agent!r}: stationmaster agents list names those there are"
                ),
            )
        except FailedPrecondition as error:
            return (FieldViolation("agent", f"agents/{agent} cannot run: {error.message}"),)
        return ()

    async def run(self, job: Job[PromptPayload]) -> Done:
        """Send the prompt, or go on where an earlier attempt was. Raises Later while enough of them run here."""
        if self._running >= self._at_once:
            raise Later(_TURN_COMES)
        self._running += 1
        try:
            return await self._run(job)
        finally:
            self._running -= 1

    async def _run(self, job: Job[PromptPayload]) -> Done:
        state = dict(job.checkpoint or {})
        if state.get("conversation") != str(job.conversation.id):  # none was begun, or it was left
            state = await self._begin(job)
        session_id, started = UUID(state["session"]), Started(UUID(state["turn"]), int(state["sequence"]))
        turn = await self._follow(job, state, session_id, started)
        if turn.state is not TurnState.COMPLETED:
            await job.conversation.leave("its turn failed")
            reason = turn.reason or turn.state.value
            retryable = turn.state in (TurnState.FAILED, TurnState.INTERRUPTED) and not state.get("final")
            raise KindFailed(
                f"the turn in {session_name(session_id)} ended as {turn.state}: {turn.error_message or reason}",
                reason=reason,
                retryable=retryable,
            )
        return Done(await self._result(job, session_id, turn) | {"prompt_version": state.get("prompt", "")})

    async def sections(self, caller: Caller, execution: Execution) -> Sequence[Section]:
        """Nothing: the conversation tells it all."""
        return ()

    async def _begin(self, job: Job[PromptPayload]) -> dict[str, Any]:
        payload, conversation = job.payload, job.conversation
        text, version = await self._text(job)
        spec = None
        if payload.model:
            spec = AgentSpec(
                payload.model,
                instructions=payload.instructions,
                prompt=payload.instructions_from,
                tools=payload.tools,
                mcp_servers=payload.mcp_servers,
            )
        labels = {"execution": str(job.execution_id)} | ({"task": job.task_id} if job.task_id else {})
        new = NewSession(
            display_name=f"task {job.task_id}" if job.task_id else "",
            agent_id=payload.agent,
            spec=spec,
            labels=labels | ({"prompt": version} if version else {}),
            prompt_variables=json.dumps(payload.instructions_variables, sort_keys=True),
        )
        opened = partial(conversation.open, keep=payload.keep_session)
        session = await self._sessions.create(_once(job, "session"), new, first=opened)
        job.log(f"runs in {session_name(session.id)}")
        request = SendRequest(text)
        started = await self._turns.send(_once(job, "turn"), session.id, request, first=conversation.begin)
        state = {
            "prompt": version,
            "conversation": str(conversation.id),
            "session": str(session.id),
            "turn": str(started.turn_id),
            "sequence": started.after_sequence,
        }
        await job.save(state)
        return state

    async def _text(self, job: Job[PromptPayload]) -> tuple[str, str]:
        """What is sent, and the version that it comes from, if it does. Experiments tell executions apart."""
        payload = job.payload
        if not payload.prompt_from:
            return payload.prompt, ""
        try:
            reference = reference_of(payload.prompt_from, "prompt_from")
            request = RenderRequest(
                reference.prompt_id,
                reference.target,
                variables=payload.prompt_variables,
                unit=f"executions/{job.execution_id}",
                agent_id=payload.agent,
            )
            rendered = await self._prompts.render(job.caller.tenant, request)
        except (InvalidArgument, FailedPrecondition, NotFound) as error:
            text = f"the prompt {payload.prompt_from} cannot be filled in: {error.message}"
            raise KindFailed(text, reason=error.reason.value, retryable=False) from error
        version = rendered.selection.version_name
        job.log(f"sends {version}")
        return rendered.text, version

    async def _follow(self, job: Job[PromptPayload], state: dict[str, Any], session_id: UUID, started: Started) -> Turn:
        """Tell of the turn's messages to its end; `state` keeps whether that is final.

        Raises Later when it waits for a permission.
        """
        turn = await self._turns.get_turn(job.caller, session_id, started.turn_id)
        if turn.state is TurnState.AWAITING_PERMISSION and state.get("waits"):
            raise Later(_LOOK_AGAIN)
        sequence, counters = started.after_sequence, dict(state.get("counters", {}))
        batches = self._watching.follow(job.caller, session_id, started, stop_at_permission=True)
        waits = False
        with job.waiting():
            async with aclosing(batches):
                async for batch in batches:
                    for event in batch.events:
                        sequence = event.sequence
                        self._tell(job, session_id, event, counters)
                        waits = waits or event.kind == "permission_requested"
                        if event.kind == "turn_finished" and event.body.get("final"):
                            state["final"] = True
                    await job.drain()
        await job.save({**state, "sequence": sequence, "counters": counters, "waits": waits})
        if waits:
            raise Later(_LOOK_AGAIN)
        return await self._turns.get_turn(job.caller, session_id, started.turn_id)

    def _tell(self, job: Job[PromptPayload], session_id: UUID, event: Event, counters: dict[str, int]) -> None:
        match event.kind:
            case "message_added":
                counters["messages"] = counters.get("messages", 0) + 1
                job.add(message_added(event.body, str(session_id)))
            case "tool_call_started":
                counters["tool_calls"] = counters.get("tool_calls", 0) + 1
                job.progress(None, f"calls {event.body['call']['tool']}", counters)
            case "permission_requested":
                name = f"{session_name(session_id)}/permissionRequests/{event.body['permission_request']}"
                job.log(f"waits for an answer to {name}", "warning")
            case "turn_finished":
                job.progress(1.0 if event.body["state"] == TurnState.COMPLETED else None, "", counters)

    async def _result(self, job: Job[PromptPayload], session_id: UUID, turn: Turn) -> dict[str, Any]:
        page = await self._sessions.list_messages(
            job.caller, session_id, 'role = "ASSISTANT"', "create_time desc", PageRequest(1)
        )
        text = "".join(part.text for part in page.items[0].parts if isinstance(part, Text)) if page.items else ""
        usage = turn.usage
        return {
            "text": text[:500_000],
            "session": session_name(session_id),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_micros": usage.cost_micros,
            "tool_calls": usage.tool_calls,
        }


def _texts(payload: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A field's texts, if it is a list of such; a template may stand for all of them."""
    found = payload.get(name)
    listed = found if isinstance(found, (list, tuple)) else [found]
    return tuple(one for one in listed if isinstance(one, str))


def _once(job: Job[PromptPayload], what: str) -> Caller:
    """A caller whose call is answered alike when it is made again, by whatever attempt."""
    key = RequestKey(uuid5(job.conversation.id, what), f"task.prompt/{what}", hashlib.sha256(what.encode()).digest())
    return replace(job.caller, request_key=key)
