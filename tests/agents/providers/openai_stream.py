"""Answers in the chat-completions protocol of OpenAI."""

from __future__ import annotations

import json
from typing import Any

from tests.agents.providers.stand_in import End, Reply, sse

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60},
}


def text(*pieces: str) -> list[dict[str, Any]]:
    """Deltas of text."""
    return [{"content": piece} for piece in pieces]


def reasoning(*pieces: str) -> list[dict[str, Any]]:
    """Deltas of reasoning, as DeepSeek and others send them."""
    return [{"reasoning_content": piece} for piece in pieces]


def tool(name: str, arguments: dict[str, Any] | str, call_id: str, index: int = 0) -> list[dict[str, Any]]:
    """Deltas of a tool call, its arguments in pieces of three characters."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    first = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    pieces = [written[at : at + 3] for at in range(0, len(written), 3)]
    rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
    return [{"tool_calls": [call]} for call in (first, *rest)]


def answer(*groups: list[dict[str, Any]], usage: dict[str, Any] | None = USAGE, stop: str = "") -> Reply:
    """A whole answer."""
    deltas = [delta for group in groups for delta in group]
    reason = stop or ("tool_calls" if any("tool_calls" in delta for delta in deltas) else "stop")
    chunks = [_chunk(delta) for delta in ({"role": "assistant", "content": ""}, *deltas)]
    chunks.append(_chunk({}, reason))
    if usage is not None:
        chunks.append(_chunk(None, usage=usage))
    return Reply([*chunks, sse("[DONE]")])


def cut(*groups: list[dict[str, Any]], end: End = End.BREAK) -> Reply:
    """An answer that ends before it is whole."""
    return Reply([_chunk(delta) for group in groups for delta in group], end=end)


def failure(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    """An error before any answer."""
    body = {"error": {"message": message, "type": "error", "code": code}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([json.dumps(body).encode()], status, named)


def _chunk(delta: dict[str, Any] | None, finish: str | None = None, usage: dict[str, Any] | None = None) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_760_000_000, "model": "gpt-4o"}
    return sse({**chunk, "choices": choices, "usage": usage})
