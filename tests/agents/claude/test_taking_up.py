"""Conversations that go on: in the same process, in another, on another server; nothing lost and nothing doubled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from stationmaster_server.agents.runtime import HistoryMessage, Text, Thinking, TurnInput
from stationmaster_server.agents.runtimes.claude.runtime import ClaudeRuntime
from stationmaster_server.agents.runtimes.claude.store import PROJECT, Transcripts
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant

from tests.agents.claude.conftest import MakeRuntime
from tests.agents.claude.conversation import READ, WRITE, asked, command_lines, first_turn, next_turn, taken_up
from tests.agents.providers import anthropic_stream as anthropic
from tests.agents.providers.stand_in import StandIn
from tests.agents.turns import history_after, last_text, run, user

HELLO = [("user", "hello"), ("assistant", "Hi."), ("user", "and now?")]


def transcripts(database: Database, turn: TurnInput) -> Transcripts:
    """Those of the turn's tenant."""
    return Transcripts(database, Tenant(turn.organization_id, turn.user_id), PROJECT)


async def test_the_next_turn_goes_on_in_the_same_process(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(anthropic.answer(anthropic.text("Hi.")), anthropic.answer(anthropic.text("More.")))
    first = first_turn("hello", tmp_path)
    events = await run(runtime, first)
    (process,) = command_lines(first.session_id)
    again = await run(runtime, next_turn(first, events, "and now?"))
    assert last_text(again) == "More."
    assert asked(provider) == HELLO
    assert command_lines(first.session_id) == [process]


async def test_another_server_goes_on_with_the_transcript_of_the_database(
    provider: StandIn, make_runtime: MakeRuntime, database: Database, tmp_path: Path
) -> None:
    provider.reply(
        anthropic.answer(anthropic.thinking("Hm.", signature="sig"), anthropic.tool(READ, {"path": "none"}, "toolu_1")),
        anthropic.answer(anthropic.text("Hi.")),
        anthropic.answer(anthropic.text("More.")),
    )
    first = first_turn("hello", tmp_path)
    events = await run(make_runtime(), first)
    kept = await transcripts(database, first).load({"project_key": PROJECT, "session_id": str(first.session_id)})
    await run(make_runtime(), next_turn(first, events, "and now?"))
    after = await transcripts(database, first).load({"project_key": PROJECT, "session_id": str(first.session_id)})
    assert kept is not None
    assert after is not None
    assert after[: len(kept)] == kept  # its own, not one that was made anew
    shown = asked(provider)
    assert [text for _, text in shown[:3]] == ["hello", "Hm.", f"{READ} toolu_1"]
    assert shown[-2:] == [("assistant", "Hi."), ("user", "and now?")]


async def test_without_a_transcript_the_conversation_is_made_of_our_messages(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    """So a fork begins, and a session whose transcript was lost."""
    provider.reply(
        anthropic.answer(
            anthropic.thinking("Hm.", signature="sig"),
            anthropic.text("I write."),
            anthropic.tool(WRITE, {"path": "a.txt", "content": "one"}, "toolu_1"),
        ),
        anthropic.answer(anthropic.text("Hi.")),
        anthropic.answer(anthropic.text("Forked.")),
        anthropic.answer(anthropic.text("Parent.")),
    )
    parent = first_turn("hello", tmp_path)
    events = await run(runtime, parent)
    fork = replace(next_turn(parent, events, "in the fork"), session_id=uuid4())
    assert last_text(await run(runtime, fork)) == "Forked."
    shown = asked(provider)
    assert [text for _, text in shown[:4]] == ["hello", "Hm.", "I write.", f"{WRITE} toolu_1"]
    assert [text for _, text in shown[5:]] == ["Hi.", "in the fork"]
    assert last_text(await run(runtime, next_turn(parent, events, "in the parent"))) == "Parent."
    assert "in the fork" not in str(asked(provider))


async def test_a_transcript_that_knows_more_or_less_than_our_messages_is_mended(
    provider: StandIn, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    for text in ("Hi.", "Never stored.", "Third.", "Fourth."):
        provider.reply(anthropic.answer(anthropic.text(text)))
    first = first_turn("hello", tmp_path)
    events = await run(make_runtime(), first)
    lost = next_turn(first, events, "rolled back")
    await run(make_runtime(), lost)
    # The turn was rolled back: our messages do not know of it. Another was stopped within its answer.
    third = next_turn(first, events, "and now?")
    cut = HistoryMessage("assistant", (Text("Half an ans"),))
    fourth = replace(third, history=[*third.history, cut, user("go on")])
    await run(make_runtime(), fourth)
    assert asked(provider) == [*HELLO, ("assistant", "Half an ans"), ("user", "go on")]


async def test_a_process_that_knows_another_conversation_is_not_used(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    for text in ("Hi.", "Second.", "Third."):
        provider.reply(anthropic.answer(anthropic.text(text)))
    first = first_turn("hello", tmp_path)
    events = await run(runtime, first)
    await run(runtime, next_turn(first, events, "rolled back"))
    await run(runtime, next_turn(first, events, "and now?"))
    assert asked(provider) == HELLO
    assert runtime.live == 1


async def test_what_lies_before_the_memory_window_is_still_known(
    provider: StandIn, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    for text in ("Hi.", "Second.", "Third."):
        provider.reply(anthropic.answer(anthropic.text(text)))
    first = first_turn("hello", tmp_path)
    second = next_turn(first, await run(make_runtime(), first), "two")
    third = next_turn(second, await run(make_runtime(), second), "and now?")
    await run(make_runtime(), replace(third, history=third.history[2:]))
    assert [text for _, text in asked(provider)] == ["hello", "Hi.", "two", "Second.", "and now?"]


async def test_a_turn_whose_server_died_behind_its_tools_goes_on(
    provider: StandIn, make_runtime: MakeRuntime, tmp_path: Path
) -> None:
    provider.reply(
        anthropic.answer(anthropic.tool(WRITE, {"path": "a.txt", "content": "one"}, "toolu_1")),
        anthropic.answer(anthropic.text("Done.")),
        anthropic.answer(anthropic.text("Done again.")),
    )
    before = first_turn("write it", tmp_path)
    events = await run(make_runtime(), before)
    upto = [event for event in events if getattr(event, "step", 1) == 1]
    after = await run(make_runtime(), taken_up(before, upto))
    assert last_text(after) == "Done again."
    shown = asked(provider)
    assert [who for who, _ in shown] == ["user", "assistant", "user", "user"]
    assert shown[2][1].startswith("toolu_1: ")


async def test_thinking_of_another_provider_is_left_out(
    provider: StandIn, runtime: ClaudeRuntime, tmp_path: Path
) -> None:
    provider.reply(anthropic.answer(anthropic.text("Yes.")))
    turn = first_turn("hello", tmp_path)
    said = HistoryMessage("assistant", (Thinking("Hm.", '{"provider":"openai","signature":"x"}'), Text("Hi.")))
    await run(runtime, replace(turn, history=[*history_after(turn, []), said, user("and now?")]))
    assert asked(provider) == HELLO
