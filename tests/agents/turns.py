"""Turns for tests, and what they yield."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from stationmaster_server.agents.model import AgentSpec, Effect
from stationmaster_server.agents.prices import Prices
from stationmaster_server.agents.providers import Providers, ProviderSettings
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    HistoryMessage,
    PermissionNeeded,
    Ruling,
    Rulings,
    Runtime,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
    ToolsCompleted,
    TurnEvent,
    TurnInput,
)
from stationmaster_server.agents.runtimes.model import ModelRuntime, ModelRuntimeSettings
from stationmaster_server.agents.runtimes.retries import Retries
from stationmaster_server.agents.tools.builtin import builtin_toolbox
from stationmaster_server.agents.tools.source import ToolSource
from stationmaster_server.agents.tools.tool import Tool
from stationmaster_server.agents.tools.toolbox import Toolbox

E = TypeVar("E")

FAST = Retries(attempts=3, first_wait=timedelta(milliseconds=1), longest_wait=timedelta(seconds=2))


def model_runtime(
    *providers: ProviderSettings, tools: Sequence[Tool] = (), tool_deadline: timedelta = timedelta(seconds=10)
) -> ModelRuntime:
    """A runtime that retries at once."""
    prices = Prices()
    toolbox = Toolbox(tools) if tools else builtin_toolbox()
    settings = ModelRuntimeSettings(tool_deadline=tool_deadline, retries=FAST)
    return ModelRuntime(Providers(providers, prices), ToolSource(toolbox), prices, settings)


def allow(call: ToolCall, default: Effect) -> Ruling:
    """Allows every call."""
    return Ruling(Effect.ALLOW)


def by_default(call: ToolCall, default: Effect) -> Ruling:
    """Has no rule at all."""
    return Ruling(default)


def user(text: str) -> HistoryMessage:
    """A message of the user."""
    return HistoryMessage("user", (Text(text),))


def turn(
    *history: HistoryMessage | str,
    spec: AgentSpec | None = None,
    model: str = "demo",
    workspace: Path = Path("/nonexistent"),
    rulings: Rulings = allow,
    results: Mapping[str, ToolResult] | None = None,
    step: int = 1,
) -> TurnInput:
    """A turn over this history; a plain text is a message of the user."""
    return TurnInput(
        organization_id=uuid4(),
        user_id=uuid4(),
        session_id=uuid4(),
        turn_id=uuid4(),
        spec=spec or AgentSpec(model, tools=("*",)),
        workspace=workspace,
        history=[user(message) if isinstance(message, str) else message for message in history],
        results=results or {},
        rulings=rulings,
        step=step,
    )


async def run(runtime: Runtime, turn_input: TurnInput, seen: list[TurnEvent] | None = None) -> list[TurnEvent]:
    """All that the turn yields, also in `seen`, for turns that fail."""
    events = [] if seen is None else seen
    async with aclosing(runtime.run(turn_input)) as stream:
        async for event in stream:
            events.append(event)
    return events


def history_after(turn_input: TurnInput, events: Sequence[TurnEvent]) -> list[HistoryMessage]:
    """The history as a consumer has stored it after these events."""
    history = list(turn_input.history)
    for event in events:
        match event:
            case AnswerCompleted():
                history.append(HistoryMessage("assistant", event.parts))
            case ToolsCompleted():
                history.append(HistoryMessage("tool", event.results))
            case _:
                pass
    return history


def only(kind: type[E], events: Sequence[object]) -> list[E]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def one(kind: type[E], events: Sequence[object]) -> E:
    """The only event of this kind."""
    (found,) = only(kind, events)
    return found


def said(events: Sequence[TurnEvent]) -> str:
    """The text that was streamed."""
    return "".join(event.text for event in only(TextDelta, events))


def last_text(events: Sequence[TurnEvent]) -> str:
    """The text of the last answer."""
    return "".join(part.text for part in only(AnswerCompleted, events)[-1].parts if isinstance(part, Text))


def asked(events: Sequence[TurnEvent]) -> tuple[ToolCall, ...]:
    """The calls that need a permission."""
    return one(PermissionNeeded, events).calls
