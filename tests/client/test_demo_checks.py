"""What the demo compares: each of its checks holds of a whole conversation, and of none that lacks what it claims."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stationmaster.v1 import event_pb2 as pb
from stationmaster_client.demo import board
from stationmaster_client.demo.check import Evidence, check, check_tools
from stationmaster_client.demo.departures import CHANGED, SERVER, Departures

TURN, LINE = "sessions/1/turns/1", "07:15 Aurora"
NUMBERS = "every sequence number is there once"
LIVE = "live, each came once and in order"
REPLAYED = "what was seen is replayed byte for byte"
KILLED = "killed in the middle of an answer, the server goes on with it"
BEGINS = "what was seen before the kill begins the answer"
MESSAGES = "every message is stored once"
WRITTEN = "what a tool writes is on disk"
ASKED = "an agent asks before what its rules say, and not else"
ONCE = "what was asked about happened after the answer, once"


def message(number: int, text: str, role: pb.MessageRole.ValueType) -> pb.Message:
    """A message of the conversation."""
    return pb.Message(name=f"sessions/1/messages/{number}", turn=TURN, role=role, parts=[pb.MessagePart(text=text)])


SAID = message(1, "say three words", pb.MESSAGE_ROLE_USER)
ANSWER = message(2, "word1 word2 word3", pb.MESSAGE_ROLE_ASSISTANT)


def conversation() -> list[pb.Event]:
    """A session, two questions, an answer that is cut off after a word and given again; numbered from 1."""
    asked = [
        pb.Event(permission_requested=pb.PermissionRequested(call=pb.ToolCall(tool=tool)))
        for tool in ("files.write", f"{SERVER}.set_platform")
    ]
    events = [
        pb.Event(session_state_changed=pb.SessionStateChanged(to_state="ACTIVE")),
        *asked,
        pb.Event(turn=TURN, message_added=pb.MessageAdded(message=SAID)),
        pb.Event(turn=TURN, turn_started=pb.TurnStarted(attempt=1)),
        pb.Event(turn=TURN, text_delta=pb.TextDelta(text="word1")),
        pb.Event(turn=TURN, turn_started=pb.TurnStarted(attempt=2, resumed=True)),
        pb.Event(turn=TURN, text_delta=pb.TextDelta(text="word1 word2 word3")),
        pb.Event(turn=TURN, message_added=pb.MessageAdded(message=ANSWER)),
        pb.Event(turn=TURN, turn_finished=pb.TurnFinished(state=pb.TURN_STATE_COMPLETED)),
    ]
    for number, event in enumerate(events, 1):
        event.sequence = number
    return events


@pytest.fixture
def evidence(tmp_path: Path) -> Evidence:
    """Of a demo in which everything went well."""
    departures = Departures(tmp_path)
    departures._file.write_text(board.FIRST)
    departures.asked()
    departures._file.write_text(f"{board.FIRST}{CHANGED}\n")
    events = conversation()
    return Evidence(
        seen=events[1:],
        seen_before_kill=5,
        killed=-signal.SIGKILL,
        newest=len(events),
        replay=events,
        messages=[SAID, ANSWER],
        said=["say three words"],
        words=3,
        departures=departures,
        written=[LINE],
        to_write=LINE,
    )


def broken(evidence: Evidence) -> set[str]:
    """The promises that are not kept."""
    checks = [*check(evidence), *(one for _, one in check_tools(evidence))]
    return {one.promise for one in checks if not one.kept}


def test_a_conversation_that_lost_nothing_keeps_every_promise(evidence: Evidence) -> None:
    assert broken(evidence) == set()


def without(events: Any, *sequences: int) -> list[pb.Event]:
    """The events but these."""
    return [event for event in events if event.sequence not in sequences]


def other_text(event: pb.Event) -> pb.Event:
    """The same event, with another text."""
    changed = pb.Event()
    changed.CopyFrom(event)
    changed.text_delta.text = "another"
    return changed


def test_a_demo_in_which_nothing_happened_keeps_none_of_them(evidence: Evidence, tmp_path: Path) -> None:
    empty = Departures(tmp_path / "empty")
    empty._file.parent.mkdir()
    empty._file.write_text(board.FIRST)
    nothing = Evidence([], 0, None, 0, [], [], [], 3, empty, [], LINE)
    assert broken(nothing) == {NUMBERS, LIVE, REPLAYED, KILLED, BEGINS, MESSAGES, WRITTEN, ASKED, ONCE}


def test_what_the_replay_lacks_or_tells_otherwise_is_seen(evidence: Evidence) -> None:
    events = list(evidence.replay)
    assert broken(replace(evidence, replay=without(events, 6))) == {NUMBERS, REPLAYED}
    assert broken(replace(evidence, replay=without(events, 10))) == {NUMBERS, REPLAYED}
    assert broken(replace(evidence, replay=[*events, events[-1]])) == {NUMBERS}
    assert broken(replace(evidence, replay=[*events[:5], other_text(events[5]), *events[6:]])) == {REPLAYED}


def test_what_did_not_come_live_or_came_twice_is_seen(evidence: Evidence) -> None:
    seen = list(evidence.seen)
    assert broken(replace(evidence, seen=without(seen, 4), seen_before_kill=4)) == {LIVE}
    assert broken(replace(evidence, seen=[*seen[:5], seen[4], *seen[5:]], seen_before_kill=6)) >= {LIVE}
    assert broken(replace(evidence, seen=[*seen[:1], seen[2], seen[1], *seen[3:]])) == {LIVE}


@pytest.mark.parametrize("ended", [None, 0, 1, -signal.SIGTERM])
def test_a_server_that_did_not_die_of_the_kill_shows_nothing(evidence: Evidence, ended: int | None) -> None:
    assert broken(replace(evidence, killed=ended)) == {KILLED}


def test_a_kill_before_or_after_the_answer_and_a_turn_that_nobody_took_up_show_nothing(evidence: Evidence) -> None:
    assert broken(replace(evidence, seen_before_kill=4)) == {KILLED, BEGINS}
    assert KILLED in broken(replace(evidence, seen_before_kill=7))
    assert KILLED in broken(replace(evidence, seen=without(evidence.seen, 7)))
    assert KILLED in broken(replace(evidence, seen=without(evidence.seen, 10)))


def test_an_answer_that_is_another_than_was_seen_is_seen(evidence: Evidence) -> None:
    cut, other = (message(2, text, pb.MESSAGE_ROLE_ASSISTANT) for text in ("word1 word2", "word1! word2 word3"))
    assert broken(replace(evidence, messages=[SAID, cut])) == {BEGINS}
    assert broken(replace(evidence, messages=[SAID, other])) == {BEGINS}


def test_messages_that_lack_or_come_twice_are_seen(evidence: Evidence) -> None:
    again = message(3, "say three words", pb.MESSAGE_ROLE_USER)
    assert broken(replace(evidence, messages=[ANSWER])) == {MESSAGES}
    assert MESSAGES in broken(replace(evidence, messages=[SAID, ANSWER, again]))


def test_what_tools_did_not_do_or_did_unasked_is_seen(evidence: Evidence) -> None:
    assert broken(replace(evidence, written=[])) == {WRITTEN}
    assert broken(replace(evidence, written=["07:15"])) == {WRITTEN}
    assert ASKED in broken(replace(evidence, seen=without(evidence.seen, 2)))
    evidence.departures._file.write_text(board.FIRST)
    assert broken(evidence) == {ONCE}
    evidence.departures._file.write_text(f"{board.FIRST}{CHANGED}\n")
    evidence.departures.asked()  # it had been changed before anybody answered
    assert broken(evidence) == {ONCE}
