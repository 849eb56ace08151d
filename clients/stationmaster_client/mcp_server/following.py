"""Follows a turn to its end, to a question, or for as long as the caller waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable
from datetime import timedelta

from pydantic import BaseModel, Field
from stationmaster.v1 import event_pb2

from stationmaster_client.mcp_server.answer import Answer, compact, cut, dollars, facts, plain, struct
from stationmaster_client.mcp_server.caller import Call
from stationmaster_client.mcp_server.tools.messages import MOST_CHARACTERS
from stationmaster_client.mcp_server.tools.permissions import Permission, convert

PATIENCE = timedelta(seconds=30)
"""How long a broken connection to the server is tried anew before it is told of."""
_MOST_TOOL_CALLS = 50
_WRITES_EVERY_SECONDS = 1.0
_ENDS = {
    "cancelled": "The turn was cancelled. What the agent said so far is kept.",
    "interrupted": "The turn was interrupted by a later message or a restart. What the agent said so far is kept.",
    "limited": "A limit ended the turn.",
    "rolled_back": "The turn was rolled back: its messages are gone.",
}


class ToolUse(BaseModel):
    """A tool that the agent called."""

    tool: str
    arguments: str
    result: str
    is_error: bool


class Turn(Answer):
    """What a turn came to, or how far it is."""

    session: str
    turn: str
    state: str = Field(
        description="completed, failed, cancelled, interrupted, limited, rolled_back; running, or queued behind "
        "another turn; awaiting_permission: goes on when permission_requests are answered"
    )
    answer: str = Field(default="", description="the agent's last message")
    reason: str = ""
    message: str = ""
    tool_calls: list[ToolUse] = Field(default=[], description=f"the last {_MOST_TOOL_CALLS} at most")
    permission_requests: list[Permission] = Field(default=[])
    input_tokens: int = 0
    output_tokens: int = 0
    cost_dollars: float = 0
    request_id: str = Field(default="", description="repeat send_message with it, and nothing is sent twice")

    def failed(self) -> bool:
        """Whether there is no answer to be had."""
        return self.state == "failed"

    def text(self) -> str:
        """The answer first, then what is to be known or done."""
        parts = [self.answer]
        if self.state == "failed":
            parts.append(f"The turn failed: {self.message or 'no message'} ({self.reason or 'no reason'})")
        elif self.state in _ENDS:
            parts.append(f"{_ENDS[self.state]} {self.message or self.reason}".strip())
        elif self.permission_requests:
            waits = "\n".join(request.line() for request in self.permission_requests)
            who = "An earlier turn, which this one is queued behind," if self.state == "queued" else "The agent"
            parts.append(f"{who} waits for permission:\n{waits}")
            parts.append("Answer with resolve_permission, then call wait_for_turn.")
        elif self.state != "completed":
            parts.append(f"The turn is {self.state}. Call wait_for_turn to wait for its end.")
        parts.append(facts(turn=self.turn, tools=", ".join(use.tool for use in self.tool_calls)))
        return "\n\n".join(filter(None, parts))


class Follower:
    """Gathers the events of one turn, and tells the caller how it goes."""

    def __init__(self, call: Call, session: str, turn: str = "", request_id: str = "") -> None:
        self._call = call
        self._pending: dict[str, ToolUse] = {}
        self._written = 0
        self._told = 0.0
        self.turn = Turn(session=session, turn=turn, state="running", request_id=request_id)

    async def follow(self, events: AsyncIterable[event_pb2.Event], wait: float) -> Turn:
        """Read until the turn ends, waits for permission, or `wait` seconds are over."""
        try:
            async with asyncio.timeout(wait):
                async for event in events:
                    if self.turn.turn and event.turn != self.turn.turn:
                        continue
                    self.turn.turn = event.turn
                    if await self._take(event):
                        break
        except TimeoutError:
            await self._call.progress("the turn goes on")
        return self.turn

    async def _take(self, event: event_pb2.Event) -> bool:
        """Note one event. True: there is nothing more to wait for."""
        kind = event.WhichOneof("payload")
        if kind == "text_delta":
            self._written += len(event.text_delta.text)
            if time.monotonic() - self._told > _WRITES_EVERY_SECONDS:
                self._told = time.monotonic()
                await self._call.progress(f"writes ({self._written:,} characters)")
        elif kind == "message_added":
            self._message(event.message_added.message)
        elif kind == "permission_requested":
            return await self._asks("awaiting_permission")
        elif kind == "turn_queued" and event.turn_queued.position:
            return await self._asks("queued")
        elif kind == "turn_started":
            self.turn.state = "running"
        elif kind == "turn_finished":
            self._finish(event.turn_finished)
            return True
        elif step := self._step(kind, event):
            await self._call.progress(step)
        return False

    def _step(self, kind: str | None, event: event_pb2.Event) -> str:
        """What to tell about an event; empty: nothing."""
        if kind == "tool_call_started":
            return self._calls(event.tool_call_started.call)
        if kind == "tool_call_finished":
            return self._called(event.tool_call_finished.result)
        if kind == "tool_call_progress":
            return event.tool_call_progress.message
        if kind == "answer_restarted":
            self._written = 0
            return "the answer was cut off and is given again"
        if kind == "limit_reached":
            limit = event.limit_reached
            return f"{limit.limit} is {limit.limit_value:,}; {limit.used_value:,} would be used"
        return ""

    def _calls(self, call: event_pb2.ToolCall) -> str:
        use = ToolUse(tool=call.tool, arguments=compact(struct(call.arguments)), result="", is_error=False)
        self._pending[call.call_id] = use
        self.turn.tool_calls = [*self.turn.tool_calls, use][-_MOST_TOOL_CALLS:]
        return f"calls {use.tool} {use.arguments}"

    def _called(self, result: event_pb2.ToolResult) -> str:
        use = self._pending.pop(result.call_id, None)
        if use is not None:
            use.result, use.is_error = cut(result.content, 1_000), result.is_error
        return f"{result.tool} {'failed' if result.is_error else 'is done'}"

    def _message(self, message: event_pb2.Message) -> None:
        if message.role == event_pb2.MESSAGE_ROLE_ASSISTANT:
            text = "".join(part.text for part in message.parts)
            number = message.name.rpartition("/")[2]
            self.turn.answer = cut(text, MOST_CHARACTERS)
            if len(text) > MOST_CHARACTERS:
                self.turn.answer += f"\n[read_message with number={number} shows the rest]"

    async def _asks(self, state: str) -> bool:
        """Whether somebody has to answer before the turn goes on; an old question may have been answered since."""
        page = await self._call.client.permissions.list(self.turn.session, filter="state = PENDING").page()
        waiting = [convert(request) for request in page.permission_requests]
        if state != "queued":
            waiting = [request for request in waiting if request.turn == self.turn.turn]
        if waiting or state == "queued":
            self.turn.state = state
        await self._call.progress(f"is {state.replace('_', ' ')}")
        self.turn.permission_requests = waiting
        return bool(waiting)

    def _finish(self, finished: event_pb2.TurnFinished) -> None:
        turn, usage = self.turn, finished.usage
        turn.state = plain(event_pb2.TurnState.Name(finished.state), "TURN_STATE")
        turn.reason, turn.message = finished.reason, finished.message
        turn.input_tokens, turn.output_tokens = usage.input_tokens, usage.output_tokens
        turn.cost_dollars = dollars(usage.cost_micros)
