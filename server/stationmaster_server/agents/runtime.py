"""What a runtime is: it runs one turn and yields what happens; whoever iterates makes each step durable.

A runtime never writes: it yields, and goes on only when its consumer asks for the next event, by which time the last
one is durable. So a turn that is begun again finds its history and the state of its tool calls as they were after the
last event consumed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from stationmaster_server.agents.model import AgentSpec, Effect


@dataclass(frozen=True, slots=True)
class Usage:
    """What model calls and tools used, and how long turns ran. Cost in millionths of a US dollar."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_micros: int = 0
    cost_estimated: bool = False
    model_calls: int = 0
    tool_calls: int = 0
    running_time: timedelta = timedelta(0)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cost_micros + other.cost_micros,
            self.cost_estimated or other.cost_estimated,
            self.model_calls + other.model_calls,
            self.tool_calls + other.tool_calls,
            self.running_time + other.running_time,
        )

    @property
    def total_tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Text:
    """Text of a message."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """The model's thinking; `signature` is what its provider wants to see again."""

    text: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for."""

    call_id: str
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered."""

    call_id: str
    tool: str
    content: str
    is_error: bool = False


Part = Text | Thinking | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """A message as a runtime sees it. `role` is `user`, `assistant`, `tool` or `system`."""

    role: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the policy, or a person, says of a call. `arguments` replace the call's; `message` is told to the model."""

    effect: Effect
    arguments: dict[str, Any] | None = None
    message: str = ""


class Rulings(Protocol):
    """Decides about a call: from the policies, the grants of the session and the answers of people."""

    def __call__(self, call: ToolCall, default: Effect) -> Ruling:
        """Returns the ruling; `default` is the tool's own effect, used where no rule matches."""


@dataclass(frozen=True, slots=True)
class TurnInput:
    """All that a runtime needs to run, or go on with, one turn."""

    organization_id: UUID
    user_id: UUID
    session_id: UUID
    turn_id: UUID
    spec: AgentSpec
    workspace: Path
    history: Sequence[HistoryMessage]
    """The memory window, ending with the turn's newest message. If that is an assistant's with tool calls, they are
    still to be run."""
    results: Mapping[str, ToolResult]
    """By call id: results of the newest message's calls that are durable already."""
    rulings: Rulings
    step: int = 1
    """The number of the next model call of the turn, from 1."""
    output_budget: Callable[[int], int | None] | None = None
    """Of the most input tokens that the next call can have: how many output tokens the limits leave it; None for any
    number. A call is never given more, so that a reserved budget is one that is kept."""
    cost_budget: Callable[[], int | None] | None = None
    """How many millionths of a US dollar limits and quotas leave the next call; None for any number."""
    agent_id: str = ""
    """The agent whose session it is; empty for a session with a specification of its own."""


@dataclass(frozen=True, slots=True)
class ModelCallStarted:
    """A model call is about to begin. The consumer reserves the budget; it may end the turn instead.

    Told again, with the same step, before each further attempt; where those before have used anything, after the
    AnswerRestarted that says what.
    """

    step: int
    model: str
    estimated_input_tokens: int
    max_output_tokens: int
    max_input_tokens: int
    """How many tokens the input can be at most."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer's text."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """A piece of the model's thinking."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class AnswerRestarted:
    """The provider broke off in the middle of an answer and is to be asked again: the step's deltas no longer count."""

    step: int
    usage: Usage = field(default_factory=Usage)
    """What the step's attempts have used so far; AnswerCompleted includes it."""


@dataclass(frozen=True, slots=True)
class AnswerCompleted:
    """The model's answer is whole. With tool calls in it the turn goes on, without it ends."""

    step: int
    model: str
    parts: tuple[Text | Thinking | ToolCall, ...]
    usage: Usage
    latency: timedelta
    first_token_latency: timedelta
    finish_reason: str = ""
    """Why the model stopped: `stop`, `length` (cut by max_output_tokens), `tool_call`, `content_filter`, `error`."""

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the answer."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


@dataclass(frozen=True, slots=True)
class PermissionNeeded:
    """These calls may run only if somebody says so.

    The runtime ends after this event, before any call of the answer has run. The turn is run again when all are
    answered.
    """

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """A call is about to run (the arguments are those it runs with)."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolCallProgress:
    """A call reports. `fraction` is from 0 to 1, or None."""

    call_id: str
    message: str
    fraction: float | None = None


OURS = "stationmaster"
"""The `logger` of what is said of an MCP server; no server may call one of its own so."""


@dataclass(frozen=True, slots=True)
class McpMessage:
    """An MCP server says something, or something is said of it (`logger` is OURS then).

    `level` is one of MCP's, from `debug` to `emergency`; `call_id` the call that it is about, if that is known.
    """

    server: str
    level: str
    text: str
    call_id: str = ""
    logger: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallFinished:
    """A call ended, or was not allowed to run."""

    result: ToolResult
    duration: timedelta
    denied: bool = False
    """Whether a policy or a person said no."""


@dataclass(frozen=True, slots=True)
class ToolsCompleted:
    """All calls of the newest answer have results, in the order of the calls: the tool message."""

    results: tuple[ToolResult, ...] = field(default=())


TurnEvent = (
    ModelCallStarted
    | TextDelta
    | ThinkingDelta
    | AnswerRestarted
    | AnswerCompleted
    | PermissionNeeded
    | ToolCallStarted
    | ToolCallProgress
    | McpMessage
    | ToolCallFinished
    | ToolsCompleted
)


class Runtime(Protocol):
    """Runs turns. One object serves many sessions at once."""

    def run(self, turn: TurnInput) -> AsyncGenerator[TurnEvent, None]:
        """Yields what happens, to the turn's end or to a PermissionNeeded.

        Closing the iterator stops the model call and the tools at once.

        Raises:
            RuntimeFailure: The turn cannot go on (the provider refuses, the model is unknown).
        """

    async def close_session(self, session_id: UUID) -> None:
        """Lets go of whatever is kept for the session (clients, subprocesses)."""


class RuntimeFailure(Exception):
    """The turn cannot go on. `reason` is an ErrorReason's name; `retryable` when another attempt may do better.

    `usage` is what the step has used in vain, None where the runtime cannot tell.
    """

    def __init__(self, reason: str, message: str, *, retryable: bool = False, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.usage = usage
        self.reason = reason
        self.message = message
        self.retryable = retryable

    @property
    def final(self) -> bool:
        """Whether the whole turn would fail again: not what went wrong here, nor what a model did this time."""
        return not self.retryable and self.reason not in ("INTERNAL", "LIMIT_REACHED")
