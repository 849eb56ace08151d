"""Our messages as entries of a transcript, and how far a transcript tells what our messages tell.

Our messages are the truth. A transcript knows more (the model's surroundings, what lies before the memory window), so
it is kept as far as it agrees, cut where it does not, and what it lacks is written from the messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import dropwhile
from typing import Any
from uuid import UUID, uuid4

from stationmaster_server.agents.runtime import HistoryMessage, Part, Text, Thinking, ToolCall, ToolResult
from stationmaster_server.agents.runtimes.claude.names import Names
from stationmaster_server.agents.transcript_store import Entry

NO_RESULT = "The call was interrupted before it had a result."
_SYNTHETIC = "<synthetic>"

Content = tuple[str, list[dict[str, Any]]]
"""A role, and the blocks of a message of the provider's protocol."""

Said = tuple[str, tuple[tuple[str, ...], ...]]
"""What a message says, as far as transcripts and messages must agree: its role, its texts, calls and results."""


@dataclass(frozen=True, slots=True)
class Scribe:
    """Writes entries for a session: where it is, which model answers, how tools are called."""

    session_id: UUID
    folder: str
    model: str
    names: Names

    def entries(self, history: Sequence[HistoryMessage], known: int, after: str | None) -> list[Entry]:
        """Entries that say this but for its first `known` messages, behind the entry whose id is `after`."""
        written: list[Entry] = []
        contents = self._contents(history[known:], _calls(history[:known]))
        for role, content in contents if known else _from_the_user(contents):
            if not content:
                continue
            entry = self._entry(role, content, after)
            after = entry["uuid"]
            written.append(entry)
        return written

    def _contents(self, history: Iterable[HistoryMessage], open_calls: dict[str, ToolCall]) -> Iterator[Content]:
        for message in history:
            if open_calls and message.role != "system":
                results = {part.call_id: part for part in message.parts if isinstance(part, ToolResult)}
                yield "user", [_result(results.get(call_id) or _lost(call)) for call_id, call in open_calls.items()]
                open_calls.clear()
            if message.role == "assistant":
                open_calls.update(_calls([message]))
                yield "assistant", [block for part in message.parts if (block := self._block(part)) is not None]
            elif message.role == "user":
                yield "user", [{"type": "text", "text": _text(message.parts)}]
        if open_calls:
            yield "user", [_result(_lost(call)) for call in open_calls.values()]

    def _block(self, part: Part) -> dict[str, Any] | None:
        match part:
            case Text(text) if text.strip():
                return {"type": "text", "text": text}
            case ToolCall(call_id, tool, arguments):
                return {"type": "tool_use", "id": call_id, "name": self.names.full(tool), "input": arguments}
            case Thinking(text, signature) if signature:
                return _thinking(text, signature)
        return None

    def _entry(self, role: str, content: list[dict[str, Any]], after: str | None) -> Entry:
        message: dict[str, Any] = {"role": role, "content": content}
        if role == "assistant":
            message |= {
                "id": f"msg_{uuid4().hex}",
                "type": "message",
                "model": self.model,
                "stop_reason": "tool_use" if content[-1]["type"] == "tool_use" else "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 0, "output_tokens": 0},
            }
        return {
            "parentUuid": after,
            "isSidechain": False,
            "userType": "external",
            "cwd": self.folder,
            "sessionId": str(self.session_id),
            "type": role,
            "message": message,
            "uuid": str(uuid4()),
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }


def said(history: Iterable[HistoryMessage]) -> list[Said]:
    """What our messages say."""
    found = ((message.role, _atoms(message)) for message in history if message.role != "system")
    return [(role, atoms) for role, atoms in found if atoms]


def agreement(entries: Sequence[Entry], wanted: Sequence[Said]) -> tuple[int, int]:
    """How many entries of the transcript to keep, and how many of the wanted messages they end with."""
    told = list(_told(entries))
    best = (0, 0)
    for start in range(len(told)):
        length = 0
        while (
            length < len(wanted)
            and start + length < len(told)
            and (told[start + length].role, tuple(told[start + length].atoms)) == wanted[length]
        ):
            length += 1
        if length and length >= best[1]:
            best = (told[start + length - 1].end, length)
    return best


def place_of(history: Sequence[HistoryMessage], messages: int) -> int:
    """The place in the history behind so many messages that say something."""
    place = 0
    while messages:
        messages -= bool(said(history[place : place + 1]))
        place += 1
    return place


def last_id(entries: Sequence[Entry]) -> str | None:
    """The id of the newest entry that others can come behind."""
    return next((entry["uuid"] for entry in reversed(entries) if entry.get("uuid") and "parentUuid" in entry), None)


@dataclass(slots=True)
class _Told:
    role: str
    key: str
    atoms: list[tuple[str, ...]]
    end: int


def _told(entries: Sequence[Entry]) -> Iterator[_Told]:
    """The messages that a transcript tells of. It has an entry for each block of an answer and for each result."""
    current: _Told | None = None
    for number, entry in enumerate(entries, start=1):
        message = entry.get("message")
        if entry.get("isMeta") or entry.get("isSidechain") or not isinstance(message, Mapping):
            continue
        if message.get("model") == _SYNTHETIC:
            continue
        role, atoms = _read(message)
        key = message.get("id", "") if role == "assistant" else "" if role == "tool" else str(number)
        if current is not None and (current.role, current.key) == (role, key):
            current.atoms.extend(atoms)
            current.end = number
            continue
        if current is not None and current.atoms:
            yield current
        current = _Told(role, key, list(atoms), number)
    if current is not None and current.atoms:
        yield current


def _read(message: Mapping[str, Any]) -> tuple[str, list[tuple[str, ...]]]:
    content = message.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    atoms: list[tuple[str, ...]] = []
    for block in blocks:
        match block:
            case {"type": "text", "text": str(text)} if text.strip():
                atoms.append(("text", text.strip()))
            case {"type": "tool_use", "id": str(call_id)}:
                atoms.append(("call", call_id))
            case {"type": "tool_result", "tool_use_id": str(call_id)}:
                atoms.append(("result", call_id, _result_text(block.get("content"))))
    if any(atom[0] == "result" for atom in atoms):
        return "tool", atoms
    return str(message.get("role")), atoms


def _result_text(content: object) -> str:
    if isinstance(content, str):
        return content.strip()
    blocks = content if isinstance(content, list) else []
    return "".join(block.get("text", "") for block in blocks if isinstance(block, Mapping)).strip()


def _atoms(message: HistoryMessage) -> tuple[tuple[str, ...], ...]:
    if message.role == "user":
        text = _text(message.parts).strip()
        return (("text", text),) if text else ()
    atoms: list[tuple[str, ...]] = []
    for part in message.parts:
        match part:
            case Text(text) if text.strip():
                atoms.append(("text", text.strip()))
            case ToolCall(call_id):
                atoms.append(("call", call_id))
            case ToolResult(call_id, _, content):
                atoms.append(("result", call_id, content.strip()))
    return tuple(atoms)


def _text(parts: Iterable[Part]) -> str:
    return "\n\n".join(part.text for part in parts if isinstance(part, Text))


def _from_the_user(contents: Iterable[Content]) -> Iterator[Content]:
    """A conversation begins with the user."""
    return dropwhile(lambda content: content[0] != "user" or not content[1], contents)


def _calls(history: Sequence[HistoryMessage]) -> dict[str, ToolCall]:
    """The calls of the newest message."""
    return {part.call_id: part for message in history[-1:] for part in message.parts if isinstance(part, ToolCall)}


def _result(result: ToolResult) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.call_id, "content": result.content}
    return block | {"is_error": True} if result.is_error else block


def _lost(call: ToolCall) -> ToolResult:
    return ToolResult(call.call_id, call.tool, NO_RESULT, is_error=True)


def _thinking(text: str, signature: str) -> dict[str, Any] | None:
    try:
        kept = json.loads(signature)
    except ValueError:
        return None
    if not isinstance(kept, dict) or kept.get("provider") != "anthropic" or not kept.get("signature"):
        return None
    if kept.get("id") == "redacted_thinking":
        return {"type": "redacted_thinking", "data": kept["signature"]}
    return {"type": "thinking", "thinking": text, "signature": kept["signature"]}
