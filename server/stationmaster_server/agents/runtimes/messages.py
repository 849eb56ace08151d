"""The history as the model layer takes it, and its answers as the history keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RequestUsage

from stationmaster_server.agents.prices import estimate_tokens, most_tokens
from stationmaster_server.agents.runtime import HistoryMessage, Part, Text, Thinking, ToolCall, ToolResult
from stationmaster_server.agents.runtimes import bounds
from stationmaster_server.agents.runtimes.arguments import json_only
from stationmaster_server.agents.runtimes.toolnames import wire_name

NO_RESULT = "The call was interrupted before it had a result."
_TOKENS_OF_A_MESSAGE = 4
# Characters of a text that is worth keeping in its converted form.
_SHORT = 2_000
# The model layer wants moments and sends none of them.
_WHENEVER = datetime(2026, 1, 1, tzinfo=UTC)
_NO_USAGE = RequestUsage()


class Conversation:
    """A conversation in the model layer's messages, which grows as the turn goes on.

    Every call has a result right behind it, as providers demand: one that was never run gets a word about that, and a
    result without a call is left out.
    """

    def __init__(self, history: Iterable[HistoryMessage], wire_names: Mapping[str, str]) -> None:
        self.messages: list[ModelMessage] = []
        self.system: list[str] = []
        self.known_calls: set[str] = set()
        self.estimated_tokens = 0
        self.most_tokens = bounds.TOKENS_OF_A_REQUEST
        self._wire_names = wire_names
        self._open: dict[str, ToolCall] = {}
        for message in history:
            self.append(message)

    def append(self, message: HistoryMessage) -> None:
        """Adds a message."""
        role, parts = message.role, message.parts
        if role == "tool":
            self._add_results(parts)
        elif role == "system":
            self.system.extend(part.text for part in parts if isinstance(part, Text))
        else:
            if self._open:
                self._add_results(())
            if role == "assistant":
                self._add_answer(parts)
            else:
                self._add_prompt(parts)
        self._estimate(parts)

    def _estimate(self, parts: Sequence[Part]) -> None:
        self.estimated_tokens += _TOKENS_OF_A_MESSAGE
        self.most_tokens += bounds.TOKENS_OF_A_MESSAGE
        for part in parts:
            told, names = _told(part)
            self.estimated_tokens += estimate_tokens(told)
            self.most_tokens += most_tokens(told) + most_tokens(names) + bounds.TOKENS_OF_A_PART

    def _add_prompt(self, parts: Sequence[Part]) -> None:
        text = "\n\n".join([part.text for part in parts if isinstance(part, Text)])
        if text:
            self.messages.append(_known_prompt(text) if len(text) <= _SHORT else _prompt(text))

    def _add_answer(self, parts: Sequence[Part]) -> None:
        if len(parts) == 1 and isinstance(parts[0], Text) and 0 < len(parts[0].text) <= _SHORT:
            self.messages.append(_known_answer(parts[0].text))
            return
        shown: list[ModelResponsePart] = []
        for part in parts:
            converted = TextPart(part.text) if isinstance(part, Text) and part.text else self._answer_part(part)
            if converted is not None:
                shown.append(converted)
        if shown:
            self.messages.append(ModelResponse(shown, usage=_NO_USAGE, timestamp=_WHENEVER))

    def _answer_part(self, part: Part) -> ModelResponsePart | None:
        match part:
            case ToolCall(call_id, tool, arguments):
                self.known_calls.add(call_id)
                self._open[call_id] = part
                return ToolCallPart(self._wire_name(tool), arguments, call_id)
            case Thinking(text, signature) if signature:
                return _thinking_part(text, signature)
        # An empty text; thinking that was cut off before it was signed, which its provider would refuse.
        return None

    def _add_results(self, parts: Sequence[Part]) -> None:
        """The results of all open calls, in the order of the calls."""
        results = {part.call_id: part for part in parts if isinstance(part, ToolResult)}
        returned = [self._return_part(results.get(call.call_id) or _lost(call)) for call in self._open.values()]
        self._open.clear()
        if returned:
            self.messages.append(ModelRequest(returned))

    def _return_part(self, result: ToolResult) -> ToolReturnPart:
        return ToolReturnPart(
            self._wire_name(result.tool),
            result.content,
            result.call_id,
            timestamp=_WHENEVER,
            outcome="failed" if result.is_error else "success",
        )

    def _wire_name(self, tool: str) -> str:
        return self._wire_names.get(tool) or wire_name(tool)


def _told(part: Part) -> tuple[str, str]:
    """What a part says, and what goes with it: names, ids, signatures."""
    match part:
        case Text(text):
            return text, ""
        case Thinking(text, signature):
            return text, signature
        case ToolCall(call_id, tool, arguments):
            # The word in the place of a lost result is counted where it may be needed.
            return json.dumps(arguments), call_id + wire_name(tool) + NO_RESULT
        case ToolResult(call_id, tool, content):
            return content, call_id + wire_name(tool)


def _prompt(text: str) -> ModelRequest:
    return ModelRequest([UserPromptPart(text, timestamp=_WHENEVER)])


def _answer(text: str) -> ModelResponse:
    return ModelResponse([TextPart(text)], usage=_NO_USAGE, timestamp=_WHENEVER)


# A window is shown again with every message of its session; making its messages anew would cost more than the turn.
# The model layer does not change the messages it is shown.
_known_prompt = lru_cache(maxsize=4096)(_prompt)
_known_answer = lru_cache(maxsize=4096)(_answer)


def _lost(call: ToolCall) -> ToolResult:
    return ToolResult(call.call_id, call.tool, NO_RESULT, is_error=True)


def answer_parts(
    response: ModelResponse, tools: Mapping[str, str], known_calls: frozenset[str]
) -> tuple[Text | Thinking | ToolCall, ...]:
    """The parts of an answer; `tools` are the tools by their wire names.

    Calls get ids that no known call has: some servers count from zero in every answer. Arguments that are no JSON
    object become `{"INVALID_JSON": text}` (see `calls.invalid_json`).
    """
    parts: list[Text | Thinking | ToolCall] = []
    taken = set(known_calls)
    for part in response.parts:
        match part:
            case TextPart(content=content) if content:
                parts.append(Text(content))
            case ThinkingPart():
                parts.append(Thinking(part.content, _signature(part)))
            case ToolCallPart():
                tool = tools.get(part.tool_name, part.tool_name)
                parts.append(ToolCall(_fresh(part.tool_call_id, taken), tool, json_only(part.args_as_dict())))
    return tuple(parts)


def _fresh(call_id: str, taken: set[str]) -> str:
    wanted, number = call_id or "call", 1
    fresh = wanted
    while fresh in taken:
        number += 1
        fresh = f"{wanted}-{number}"
    taken.add(fresh)
    return fresh


def _signature(part: ThinkingPart) -> str:
    """What the provider wants to see again, and which one: another one would refuse it."""
    kept = {
        "provider": part.provider_name,
        "id": part.id,
        "signature": part.signature,
        "details": part.provider_details,
    }
    return json.dumps({key: value for key, value in kept.items() if value}, separators=(",", ":"))


def _thinking_part(text: str, signature: str) -> ThinkingPart | None:
    try:
        kept = json.loads(signature)
    except ValueError:
        return None
    if not isinstance(kept, dict) or not kept.get("provider"):
        return None
    return ThinkingPart(
        text,
        id=kept.get("id"),
        signature=kept.get("signature"),
        provider_name=kept["provider"],
        provider_details=kept.get("details"),
    )
