"""Parts, usage and provenance of messages as the JSON of columns and event bodies. Durations are microseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, assert_never
from uuid import UUID

from stationmaster_server.agents.runtime import Part, Text, Thinking, ToolCall, ToolResult, Usage
from stationmaster_server.sessions.model import Message, Provenance

MICROSECOND = timedelta(microseconds=1)


def parts_to_json(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Each part as an object whose first key says what it is: `text`, `thinking`, `tool_call` or `tool_result`."""
    return [_part_to_json(part) for part in parts]


def parts_from_json(document: Iterable[Mapping[str, Any]]) -> tuple[Part, ...]:
    """The parts that `parts_to_json` made this of."""
    return tuple(_part_from_json(part) for part in document)


def searchable_text(parts: Iterable[Part]) -> str:
    """What SearchMessages looks through: the text parts. PostgreSQL's text cannot hold NUL."""
    return "\n".join(part.text for part in parts if isinstance(part, Text)).replace("\0", " ")


def _part_to_json(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            return {"text": part.text}
        case Thinking():
            return {"thinking": part.text, "signature": part.signature}
        case ToolCall():
            return {"tool_call": call_to_json(part)}
        case ToolResult():
            return {"tool_result": result_to_json(part)}
        case _:
            assert_never(part)


def _part_from_json(document: Mapping[str, Any]) -> Part:
    match document:
        case {"text": text}:
            return Text(text)
        case {"thinking": text}:
            return Thinking(text, document.get("signature", ""))
        case {"tool_call": call}:
            return call_from_json(call)
        case {"tool_result": result}:
            return result_from_json(result)
    raise ValueError(f"a message has a part of no known kind: {sorted(document)}")


def call_to_json(call: ToolCall) -> dict[str, Any]:
    """A tool call as a JSON object."""
    return {"call_id": call.call_id, "tool": call.tool, "arguments": call.arguments}


def call_from_json(document: Mapping[str, Any]) -> ToolCall:
    """The tool call that `call_to_json` made this of."""
    return ToolCall(document["call_id"], document["tool"], document["arguments"])


def result_to_json(result: ToolResult) -> dict[str, Any]:
    """A tool's answer as a JSON object."""
    return {"call_id": result.call_id, "tool": result.tool, "content": result.content, "is_error": result.is_error}


def result_from_json(document: Mapping[str, Any]) -> ToolResult:
    """The answer that `result_to_json` made this of."""
    return ToolResult(document["call_id"], document["tool"], document["content"], document["is_error"])


def usage_to_json(usage: Usage) -> dict[str, Any]:
    """What was used as a JSON object without zeros."""
    document = {name: getattr(usage, name) for name in Usage.__slots__}
    document["running_time_us"] = document.pop("running_time") // MICROSECOND
    return {name: value for name, value in document.items() if value}


def usage_from_json(document: Mapping[str, Any]) -> Usage:
    """What `usage_to_json` made this of."""
    counts = {name: value for name, value in document.items() if name != "running_time_us"}
    return Usage(**counts, running_time=document.get("running_time_us", 0) * MICROSECOND)


def provenance_to_json(provenance: Provenance) -> dict[str, Any]:
    """What made a message, as a JSON object."""
    return {
        "model": provenance.model,
        "usage": usage_to_json(provenance.usage),
        "latency_us": provenance.latency // MICROSECOND,
        "first_token_latency_us": provenance.first_token_latency // MICROSECOND,
        "prompt_version": provenance.prompt_version,
        "prompt_variant": provenance.prompt_variant,
        "audit_event": str(provenance.audit_event_id) if provenance.audit_event_id else "",
    }


def provenance_from_json(document: Mapping[str, Any]) -> Provenance:
    """What `provenance_to_json` made this of."""
    return Provenance(
        model=document["model"],
        usage=usage_from_json(document["usage"]),
        latency=timedelta(microseconds=document["latency_us"]),
        first_token_latency=timedelta(microseconds=document["first_token_latency_us"]),
        prompt_version=document["prompt_version"],
        prompt_variant=document["prompt_variant"],
        audit_event_id=UUID(document["audit_event"]) if document["audit_event"] else None,
    )


def message_to_json(message: Message) -> dict[str, Any]:
    """A stored message as the body of its event has it; the turn and the session stand beside it there."""
    document: dict[str, Any] = {
        "number": message.number,
        "role": message.role.value,
        "parts": parts_to_json(message.parts),
        "created_at": message.created_at.isoformat(),
    }
    if message.interrupted:
        document["interrupted"] = True
    if message.provenance is not None:
        document["provenance"] = provenance_to_json(message.provenance)
    if message.first_delta:
        document["replaces"] = {"first_sequence": message.first_delta, "last_sequence": message.last_delta}
    return document
