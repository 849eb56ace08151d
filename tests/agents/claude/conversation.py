"""What the provider was asked, turns that follow one another, and the processes that there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from stationmaster_server.agents.model import AgentSpec, Effect
from stationmaster_server.agents.runtime import Ruling, ToolCall, TurnEvent, TurnInput

from tests.agents.providers.stand_in import StandIn
from tests.agents.turns import history_after, turn, user

MODEL = "anthropic:claude-sonnet-5"
WRITE = "mcp__stationmaster__files_write"
READ = "mcp__stationmaster__files_read"


def first_turn(text: str, workspace: Path, **changes: Any) -> TurnInput:
    """The first turn of a new session."""
    spec = changes.pop("spec", None) or AgentSpec(MODEL, tools=("*",))
    return turn(text, spec=spec, workspace=workspace, **changes)


def next_turn(before: TurnInput, events: Sequence[TurnEvent], text: str) -> TurnInput:
    """The turn of the same session that follows."""
    return replace(before, history=[*history_after(before, events), user(text)], step=1)


def taken_up(before: TurnInput, events: Sequence[TurnEvent], **changes: Any) -> TurnInput:
    """The same turn, run again from what these events made durable."""
    return replace(before, history=history_after(before, events), step=before.step + 1, **changes)


def asking(call: ToolCall, default: Effect) -> Ruling:
    """Asks about every call."""
    return Ruling(Effect.ASK)


def asked(provider: StandIn, number: int = -1) -> list[tuple[str, str]]:
    """What the model was shown with a request: who said what, without what the command line adds."""
    shown: list[tuple[str, str]] = []
    for message in provider.requests[number].body["messages"]:
        if message["role"] == "system":
            continue
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        shown.extend((message["role"], _shown(block)) for block in blocks)
    return shown


def _shown(block: dict[str, Any]) -> str:
    match block:
        case {"type": "tool_use"}:
            return f"{block['name']} {block['id']}"
        case {"type": "tool_result", "content": str(text)}:
            return f"{block['tool_use_id']}: {text}"
        case {"type": "tool_result"}:
            return f"{block['tool_use_id']}: {''.join(part['text'] for part in block['content'])}"
    return str(block.get("text") or block.get("thinking"))


def command_lines(session_id: UUID | None = None, *, of: int | None = None) -> list[psutil.Process]:
    """The command lines of the SDK below a process, this one by default; of one session, if it is named."""
    found = []
    for process in psutil.Process(of or os.getpid()).children(recursive=True):
        try:
            line = process.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if (
            line
            and line[0].endswith("claude")
            and (session_id is None or any(str(session_id) in word for word in line))
        ):
            found.append(process)
    return found
