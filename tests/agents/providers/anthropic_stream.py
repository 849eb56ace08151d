"""Answers in the Messages protocol of Anthropic."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from tests.agents.providers.stand_in import End, Reply, sse

_ids = count(1)
USAGE = {"input_tokens": 100, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 10}


def text(*pieces: str) -> list[bytes]:
    """The inner events of a text block."""
    return [_start({"type": "text", "text": ""}), *(_delta("text_delta", text=piece) for piece in pieces), _stop()]


def thinking(*pieces: str, signature: str) -> list[bytes]:
    """The inner events of a thinking block."""
    deltas = [_delta("thinking_delta", thinking=piece) for piece in pieces]
    signed = _delta("signature_delta", signature=signature)
    return [_start({"type": "thinking", "thinking": "", "signature": ""}), *deltas, signed, _stop()]


def tool(name: str, arguments: dict[str, Any] | str, call_id: str) -> list[bytes]:
    """The inner events of a tool call, its arguments in pieces of three characters."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    pieces = [written[at : at + 3] for at in range(0, len(written), 3)]
    deltas = [_delta("input_json_delta", partial_json=piece) for piece in pieces]
    return [_start({"type": "tool_use", "id": call_id, "name": name, "input": {}}), *deltas, _stop()]


def answer(
    *blocks: list[bytes],
    output_tokens: int = 20,
    stop: str = "",
    usage: tuple[dict[str, int], dict[str, int]] | None = None,
) -> Reply:
    """A whole answer; `usage` is what it reports at its begin and its end."""
    reason = stop or ("tool_use" if any(b'"tool_use"' in block[0] for block in blocks) else "end_turn")
    end = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}}
    first, final = usage or ({**USAGE, "output_tokens": 1}, {"output_tokens": output_tokens})
    last = sse({**end, "usage": final}, "message_delta")
    return Reply([_begin(first), *_indexed(blocks), last, sse({"type": "message_stop"}, "message_stop")])


def cut(*blocks: list[bytes], end: End = End.BREAK) -> Reply:
    """An answer that ends within its last block."""
    return Reply([_begin(), *_indexed(blocks)[:-1]], end=end)


def overloaded_within(*blocks: list[bytes]) -> Reply:
    """An answer within which the provider reports that it is overloaded."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    return Reply([_begin(), *_indexed(blocks)[:-1], sse(error, "error")])


def failure(status: int, kind: str, message: str, **headers: str) -> Reply:
    """An error before any answer."""
    body = {"type": "error", "error": {"type": kind, "message": message}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply([json.dumps(body).encode()], status, named)


def _begin(usage: dict[str, int] | None = None) -> bytes:
    message: dict[str, Any] = {
        "id": f"msg_{next(_ids)}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**USAGE, "output_tokens": 1} if usage is None else usage,
    }
    return sse({"type": "message_start", "message": message}, "message_start")


def _indexed(blocks: tuple[list[bytes], ...]) -> list[bytes]:
    return [
        event.replace(b'"index": 0', f'"index": {index}'.encode())
        for index, block in enumerate(blocks)
        for event in block
    ]


def _start(block: dict[str, Any]) -> bytes:
    return sse({"type": "content_block_start", "index": 0, "content_block": block}, "content_block_start")


def _delta(kind: str, **content: str) -> bytes:
    return sse({"type": "content_block_delta", "index": 0, "delta": {"type": kind, **content}}, "content_block_delta")


def _stop() -> bytes:
    return sse({"type": "content_block_stop", "index": 0}, "content_block_stop")
