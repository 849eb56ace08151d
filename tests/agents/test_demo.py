"""The demo model: what it understands, and that it does the same again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.agents.demo import words
from stationmaster_server.agents.demo.grammar import Call, Calls, Fail, Say, Slow, Tell, Think, parse
from stationmaster_server.agents.runtime import (
    AnswerCompleted,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolCallFinished,
)

from tests.agents.turns import last_text, model_runtime, one, only, run, said, turn


@pytest.mark.parametrize(
    ("message", "orders"),
    [
        ("/say 5", (Say(5),)),
        ("/slow 20\n/say 1", (Slow(0.02), Say(1))),
        ("/think deep thought", (Think("deep thought"),)),
        ("/fail rate_limit", (Fail("rate_limit"),)),
        ('/tool a.b {"x": 1}', (Calls((Call("a.b", '{"x": 1}'),)),)),
        ("/tool a\n/tool b", (Calls((Call("a", "{}"),)), Calls((Call("b", "{}"),)))),
        ("/tools\n/tool a\n/tool b\n/say 1", (Calls((Call("a", "{}"), Call("b", "{}"))), Say(1))),
        ("please do:\n/say 1", (Say(1),)),
        ("/dance wildly", (Tell("I do not understand /dance wildly."),)),
        ("hello", (Tell(words.HELP),)),
    ],
)
def test_orders_are_read_line_by_line(message: str, orders: tuple[object, ...]) -> None:
    assert parse(message) == orders


@pytest.mark.parametrize(
    ("message", "tool", "arguments"),
    [
        ("list the files", "files.list", {"path": "."}),
        ("List files in src/", "files.list", {"path": "src"}),
        ("write hello to notes.txt", "files.write", {"path": "notes.txt", "content": "hello"}),
        ('Write "hello, world" into a/b.txt.', "files.write", {"path": "a/b.txt", "content": "hello, world"}),
        ("read notes.txt", "files.read", {"path": "notes.txt"}),
        ("search for hello", "files.search", {"text": "hello"}),
        ("what is 6*7", "math.evaluate", {"expression": "6*7"}),
        ("What's (1 + 2) / 3?", "math.evaluate", {"expression": "(1 + 2) / 3"}),
        ("what time is it?", "time.now", {"time_zone": "UTC"}),
        ("what time is it in Europe/Berlin", "time.now", {"time_zone": "Europe/Berlin"}),
    ],
)
def test_ordinary_words_call_a_tool(message: str, tool: str, arguments: dict[str, str]) -> None:
    (calls,) = parse(message)
    assert isinstance(calls, Calls)
    (call,) = calls.calls
    assert (call.tool, json.loads(call.arguments)) == (tool, arguments)


@given(st.text(max_size=200))
def test_any_message_is_understood_somehow(message: str) -> None:
    assert isinstance(parse(message), tuple)


async def test_say_streams_exactly_so_many_words() -> None:
    events = await run(model_runtime(), turn("/say 1000"))
    assert len(only(TextDelta, events)) == 1000
    assert said(events).split() == [f"word{number}" for number in range(1, 1001)]
    usage = one(AnswerCompleted, events).usage
    assert (usage.output_tokens, usage.cost_micros, usage.cost_estimated) == (1000, 0, False)


async def test_thinking_is_streamed_before_the_text() -> None:
    events = await run(model_runtime(), turn("/think so it is\n/say 1"))
    assert "".join(delta.text for delta in only(ThinkingDelta, events)) == "so it is"
    assert isinstance(one(AnswerCompleted, events).parts[0], Thinking)


async def test_the_words_of_the_issue_work_end_to_end(tmp_path: Path) -> None:
    runtime = model_runtime()

    async def ask(message: str) -> str:
        return last_text(await run(runtime, turn(message, workspace=tmp_path)))

    assert await ask("write hello to notes.txt") == "files.write says: Wrote 5 bytes to notes.txt."
    assert await ask("list the files") == "files.list says: notes.txt (5 bytes)"
    assert await ask("read notes.txt") == "files.read says: hello"
    assert await ask("search for hell") == "files.search says: notes.txt:1: hello"
    assert await ask("what is 6*7") == "math.evaluate says: 42"
    assert re.match(r"time.now says: \d{4}-\d\d-\d\dT", await ask("what time is it"))
    assert await ask("hello") == words.HELP


async def test_each_tool_line_is_a_step_and_the_end_tells_all_results() -> None:
    message = '/tool math.evaluate {"expression": "1+1"}\n/say 2\n/tool math.evaluate {"expression": "1/0"}'
    events = await run(model_runtime(), turn(message))
    answers = only(AnswerCompleted, events)
    assert [len(answer.calls) for answer in answers] == [1, 1, 0]
    assert said(events).startswith("word1 word2")
    assert last_text(events) == "math.evaluate says: 2\nmath.evaluate failed: '1/0' has no value: division by zero"


async def test_say_after_tools_is_the_whole_closing_text() -> None:
    events = await run(model_runtime(), turn("/tool time.now {}\n/say 3"))
    assert last_text(events) == "word1 word2 word3"


async def test_the_same_history_gets_the_same_answer(tmp_path: Path) -> None:
    message = "/think a b\n/say 3\n/tools\n/tool files.list {}\n/tool math.evaluate {}"
    one_run, another = [
        [event.parts for event in only(AnswerCompleted, await run(model_runtime(), turn(message, workspace=tmp_path)))]
        for _ in range(2)
    ]
    assert one_run == another


async def test_a_second_message_is_answered_for_itself() -> None:
    events = await run(model_runtime(), turn("what is 6*7", "/say 1"))
    assert last_text(events) == "word1"
    assert not only(ToolCallFinished, events)
