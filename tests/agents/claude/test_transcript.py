"""How far a transcript and our messages agree, and what is written where they do not."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from stationmaster_server.agents.runtime import HistoryMessage, Text, ToolCall, ToolResult
from stationmaster_server.agents.runtimes.claude.names import Names
from stationmaster_server.agents.runtimes.claude.transcript import (
    NO_RESULT,
    Scribe,
    agreement,
    last_id,
    place_of,
    said,
)

from tests.agents.turns import user

SCRIBE = Scribe(uuid4(), "/workspace", "claude-sonnet-5", Names(["files.read"]))
CALLS = HistoryMessage("assistant", (Text("I read."), ToolCall("c1", "files.read", {}), ToolCall("c2", "gone", {})))
RESULTS = HistoryMessage("tool", (ToolResult("c1", "files.read", "one"), ToolResult("c2", "gone", "no", is_error=True)))
HISTORY = [user("hello"), HistoryMessage("assistant", (Text("Hi."),)), user("read"), CALLS, RESULTS]


def test_what_is_written_says_what_the_messages_say() -> None:
    entries = SCRIBE.entries(HISTORY, 0, None)
    assert agreement(entries, said(HISTORY)) == (len(entries), len(HISTORY))
    assert [entry["parentUuid"] for entry in entries] == [None, *(entry["uuid"] for entry in entries[:-1])]
    assert [block.get("name") for block in entries[3]["message"]["content"]] == [
        None,
        "mcp__stationmaster__files_read",
        "mcp__stationmaster__gone",
    ]


def test_a_transcript_that_lags_is_written_on_from_any_message() -> None:
    for known in range(len(HISTORY) + 1):
        entries = SCRIBE.entries(HISTORY[:known], 0, None)[:known]
        kept, agreed = agreement(entries, said(HISTORY))
        assert (kept, agreed) == (len(entries), known)
        more = SCRIBE.entries(HISTORY, place_of(HISTORY, agreed), last_id(entries))
        whole = entries + more
        assert agreement(whole, said(HISTORY)) == (len(whole), len(HISTORY))


def test_what_a_transcript_knows_beyond_our_messages_is_cut() -> None:
    entries = SCRIBE.entries([*HISTORY, HistoryMessage("assistant", (Text("Never stored."),))], 0, None)
    assert agreement(entries, said(HISTORY)) == (len(HISTORY), len(HISTORY))


def test_results_that_the_command_line_made_up_are_not_kept() -> None:
    entries = SCRIBE.entries(HISTORY[:4], 0, None)
    assert NO_RESULT in str(entries[-1])
    assert agreement(entries, said(HISTORY)) == (4, 4)


def test_a_window_that_begins_later_keeps_what_is_before_it() -> None:
    entries = SCRIBE.entries(HISTORY, 0, None)
    assert agreement(entries, said(HISTORY[2:])) == (len(entries), 3)


def test_a_transcript_of_something_else_is_not_kept_at_all() -> None:
    entries = SCRIBE.entries([user("another"), HistoryMessage("assistant", (Text("Yes."),))], 0, None)
    assert agreement(entries, said(HISTORY)) == (0, 0)


def test_entries_that_say_nothing_stand_in_nobodys_way() -> None:
    entries: list[dict[str, Any]] = SCRIBE.entries(HISTORY[:3], 0, None)
    nothing: list[dict[str, Any]] = [
        {"type": "attachment", "uuid": "a", "parentUuid": "x"},
        {"type": "user", "isMeta": True, "message": {"role": "user", "content": "Continue."}},
        {"type": "assistant", "message": {"role": "assistant", "model": "<synthetic>", "content": [{"type": "text"}]}},
        {"type": "last-prompt"},
    ]
    mixed = [entry for pair in zip(entries, nothing, strict=False) for entry in pair]
    assert agreement(mixed, said(HISTORY[:3]))[1] == 3


def test_every_call_has_a_result_and_the_user_begins() -> None:
    stopped = [RESULTS, HistoryMessage("assistant", (Text("Yes."),)), user("read"), CALLS, user("and?")]
    contents = [(entry["type"], entry["message"]["content"]) for entry in SCRIBE.entries(stopped, 0, None)]
    assert [role for role, _ in contents] == ["user", "assistant", "user", "user"]
    assert [block["content"] for block in contents[2][1]] == [NO_RESULT, NO_RESULT]
