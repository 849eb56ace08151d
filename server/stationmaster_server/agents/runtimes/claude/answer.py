"""One answer of the model, put together from the events of its stream."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from stationmaster_server.agents.prices import Prices, Tokens, estimate_tokens, most_tokens
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    AnswerRestarted,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCall,
    Usage,
)
from stationmaster_server.agents.runtimes.claude.names import Names

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_call",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


@dataclass(slots=True)
class _Block:
    kind: str
    start: Mapping[str, Any]
    pieces: list[str] = field(default_factory=list)
    signature: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Answer:
    """An answer under way. `whole` once the provider has said so."""

    def __init__(self, step: int, model_id: str, names: Names, prices: Prices) -> None:
        self.whole = False
        self._begun = False
        self._step = step
        self._model_id = model_id
        self._names = names
        self._prices = prices
        self._most_input = 0
        self._blocks: dict[int, _Block] = {}
        self._counted: dict[str, int] = {}
        self._stop_reason = ""
        self._wasted = Usage()
        self._asked = 0.0
        self._first_delta = 0.0

    @property
    def finish_reason(self) -> str:
        """Why the model stopped, in our words."""
        return FINISHES.get(self._stop_reason, self._stop_reason)

    def again(self) -> AnswerRestarted | None:
        """It is asked for once more; what the provider sent before it broke off is paid for."""
        if not self._begun:
            return None
        self._wasted = self._spent()
        self._blocks, self._counted, self._stop_reason, self._begun = {}, {}, "", False
        return AnswerRestarted(self._step, self._wasted)

    def asked(self, most_input_tokens: int) -> None:
        """The provider is asked, with at most so many tokens."""
        self._most_input = most_input_tokens
        self._asked = self._asked or time.perf_counter()

    def take(self, event: Mapping[str, Any]) -> TextDelta | ThinkingDelta | None:
        """What the event brings for readers."""
        match event:
            case {"type": "content_block_delta", "index": int(index), "delta": delta}:
                return self._delta(self._blocks[index], delta) if index in self._blocks else None
            case {"type": "content_block_start", "index": int(index), "content_block": {"type": str(kind)} as block}:
                self._blocks[index] = _Block(kind, block)
            case {"type": "message_start", "message": {**message}}:
                self._begun = True
                self._count(message.get("usage"))
            case {"type": "message_delta", "delta": {**changed}}:
                self._stop_reason = str(changed.get("stop_reason") or self._stop_reason)
                self._count(event.get("usage"))
            case {"type": "message_stop"}:
                self.whole = bool(self._stop_reason)
        return None

    def completed(self) -> AnswerCompleted:
        """The whole answer."""
        now = time.perf_counter()
        return AnswerCompleted(
            step=self._step,
            model=self._model_id,
            parts=self.parts(),
            usage=self._wasted + self._usage(),
            latency=timedelta(seconds=now - self._asked),
            first_token_latency=timedelta(seconds=(self._first_delta or now) - self._asked),
            finish_reason=self.finish_reason,
        )

    @property
    def in_vain(self) -> Usage:
        """What it used if it does not become whole: nothing, if no attempt began."""
        return self._spent()

    def parts(self) -> tuple[Text | Thinking | ToolCall, ...]:
        """What it is made of, without what is empty."""
        found = (self._part(block) for _, block in sorted(self._blocks.items()))
        return tuple(part for part in found if part is not None)

    def _count(self, usage: object) -> None:
        if isinstance(usage, Mapping):
            self._counted.update({name: max(count, 0) for name, count in usage.items() if isinstance(count, int)})

    def _delta(self, block: _Block, delta: Mapping[str, Any]) -> TextDelta | ThinkingDelta | None:
        match delta:
            case {"type": "text_delta", "text": str(text)} if text:
                block.pieces.append(text)
                self._first_delta = self._first_delta or time.perf_counter()
                return TextDelta(self._step, text)
            case {"type": "thinking_delta", "thinking": str(text)} if text:
                block.pieces.append(text)
                self._first_delta = self._first_delta or time.perf_counter()
                return ThinkingDelta(self._step, text)
            case {"type": "input_json_delta", "partial_json": str(text)}:
                block.pieces.append(text)
            case {"type": "signature_delta", "signature": str(signature)}:
                block.signature += signature
        return None

    def _part(self, block: _Block) -> Text | Thinking | ToolCall | None:
        match block.kind:
            case "text" if block.text:
                return Text(block.text)
            case "thinking":
                return Thinking(block.text, _signature(signature=block.signature))
            case "redacted_thinking":
                return Thinking("", _signature(id="redacted_thinking", signature=block.start.get("data", "")))
            case "tool_use":
                tool = self._names.tool(str(block.start.get("name", "")))
                arguments = _arguments(block.text or json.dumps(block.start.get("input", {})))
                return ToolCall(str(block.start.get("id", "")), tool, arguments)
        return None

    def _spent(self) -> Usage:
        return self._wasted + self._usage(broken=True) if self._begun else self._wasted

    def _usage(self, *, broken: bool = False) -> Usage:
        counted = self._counted
        read, write = counted.get("cache_read_input_tokens", 0), counted.get("cache_creation_input_tokens", 0)
        given, made = counted.get("input_tokens", 0) + read + write, counted.get("output_tokens", 0)
        said = "".join(block.text + block.signature for block in self._blocks.values())
        estimated = broken or not given or (bool(said) and not made)
        # A report of nothing makes nothing free: then it is what the bytes can have been at most.
        given = given or self._most_input
        made = max(made, estimate_tokens(said)) if broken else made or most_tokens(said)
        cost, unknown = self._prices.cost(self._model_id, Tokens(given, made, read, write))
        return Usage(given, made, read, cost, unknown or estimated, model_calls=1)


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"INVALID_JSON": text}


def _signature(**kept: str) -> str:
    """As the runtime `model` keeps it: which provider wants what to see again."""
    found = {"provider": "anthropic", **{name: value for name, value in kept.items() if value}}
    return json.dumps(found, separators=(",", ":")) if len(found) > 1 else ""
