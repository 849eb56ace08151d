"""A call that a command line wants to make: what its input can come to, and what is sent of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stationmaster_server.agents.prices import estimate_tokens
from stationmaster_server.agents.runtimes import bounds

# A picture of few bytes may have many tokens; of these none has more than bytes.
_COUNTABLE = frozenset({"text", "thinking", "redacted_thinking", "tool_use", "tool_result"})
_LEAST_THINKING = 1_024


@dataclass(frozen=True, slots=True)
class Request:
    """A call's body, and how many tokens its input has, about and at most."""

    document: Mapping[str, Any]
    max_output_tokens: int
    estimated_input_tokens: int
    most_input_tokens: int

    def body(self, max_output_tokens: int) -> bytes:
        """What is sent: the call with at most so many tokens of output."""
        document = {**self.document, "max_tokens": max_output_tokens}
        match document.get("thinking"):
            case {"budget_tokens": int(budget), **rest} if budget >= max_output_tokens > _LEAST_THINKING:
                document["thinking"] = {**rest, "budget_tokens": max_output_tokens - 1}
            case {"budget_tokens": int(budget)} if budget >= max_output_tokens:
                # Providers refuse so little thinking, and to clear the thinking of a call without any.
                del document["thinking"]
                document.pop("context_management", None)
        return json.dumps(document, separators=(",", ":")).encode()


def parse(body: bytes, model: str) -> Request | None:
    """The call, if it is a streamed one of this model, whose bytes tell how many tokens it has. Slow for a long one."""
    match json.loads(body):
        case {"model": asked, "stream": True, "max_tokens": int(most), "messages": [*messages]} as document:
            tools = document.get("tools", [])
            blocks = [block for message in messages for block in _blocks(message)]
            if asked == model and most > 0 and _countable(blocks, tools) and "mcp_servers" not in document:
                around = (
                    bounds.TOKENS_OF_A_REQUEST
                    + bounds.TOKENS_OF_A_MESSAGE * len(messages)
                    + bounds.TOKENS_OF_A_PART * len(blocks)
                    + bounds.tokens_around(len(tools))
                )
                return Request(document, most, estimate_tokens(body.decode()), len(body) + around)
    return None


def _countable(blocks: list[Any], tools: list[Any]) -> bool:
    """Whether nothing is asked with but text, and tools that run here: what a provider's own find is input as well."""
    ours = all(isinstance(tool, dict) and tool.get("type", "custom") == "custom" for tool in tools)
    return ours and all(isinstance(block, dict) and block.get("type") in _COUNTABLE for block in blocks)


def _blocks(holder: object) -> Iterator[Any]:
    """What a message, or the result of a tool, is made of."""
    match holder:
        case {"content": [*blocks]}:
            for block in blocks:
                yield block
                yield from _blocks(block)
