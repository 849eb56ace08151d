"""Compares what was seen live with what the server replays: nothing lost, nothing twice, nothing taken back."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from stationmaster.v1 import event_pb2

from stationmaster_client.demo.departures import CHANGED, SERVER, Departures
from stationmaster_client.demo.stage import Check


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to compare."""

    seen: Sequence[event_pb2.Event]
    """Everything that the conversation's streams gave, over the crash."""
    seen_before_kill: int
    """How many of them came before the server was killed."""
    killed: int | None
    """What the server that was killed ended with; None: it was not."""
    newest: int
    """The last sequence of the session, as GetSession gives it."""
    replay: Sequence[event_pb2.Event]
    """What WatchSession gives afterwards, from the beginning."""
    messages: Sequence[event_pb2.Message]
    """What ListMessages gives afterwards."""
    said: Sequence[str]
    """What the user said."""
    words: int
    """How many words the interrupted answer has."""
    departures: Departures
    """The board that an MCP server changed."""
    written: Sequence[str]
    """What is on disk in the files that the agent was asked to write; there should be one."""
    to_write: str
    """What it was asked to write into it."""


def check(evidence: Evidence) -> list[Check]:
    """All checks, in the order in which they are shown."""
    return [
        _numbers(evidence),
        _live_order(evidence),
        _kept(evidence),
        _killed(evidence),
        _prefix(evidence),
        _messages(evidence),
    ]


def check_tools(evidence: Evidence) -> list[tuple[str, Check]]:
    """What tools did, each with its service: a file, what an agent's rule asks about, what no rule allows."""
    written = Check(
        "what a tool writes is on disk", list(evidence.written) == [evidence.to_write], ", ".join(evidence.written)
    )
    asked = [event.permission_requested.call.tool for event in evidence.seen if event.HasField("permission_requested")]
    wanted = ["files.write", f"{SERVER}.set_platform"]
    by_rule = Check("an agent asks before what its rules say, and not else", asked == wanted, ", ".join(asked))
    return [("Agent", written), ("Agent", by_rule), ("MCP", _asked(evidence.departures))]


def _numbers(evidence: Evidence) -> Check:
    """Every number from 1 is there once: as an event, or in the range that a message stands for."""
    numbers: list[int] = [event.sequence for event in evidence.replay]
    present = set(numbers)
    newest = evidence.newest
    replaced = _replaced(evidence.replay)
    missing = [number for number in range(1, newest + 1) if number not in present and number not in replaced]
    good = bool(numbers) and not missing and numbers == sorted(present) and numbers[-1] == newest
    compacted = f", {newest - len(numbers)} of them in their message" if newest > len(numbers) else ""
    detail = f"1 to {newest}{compacted}" if good else f"missing {missing}, {len(numbers)} of {newest} replayed"
    return Check("every sequence number is there once", good, detail)


def _live_order(evidence: Evidence) -> Check:
    """Live, too, no event came twice or out of order or not at all, but the first: the session's creation."""
    numbers = [event.sequence for event in evidence.seen]
    good = bool(numbers) and numbers == list(range(2, evidence.newest + 1))
    return Check("live, each came once and in order", good, f"{len(numbers)} events")


def _kept(evidence: Evidence) -> Check:
    """Durable before delivered: what was seen is replayed byte for byte, or stands in its message."""
    stored = {event.sequence: event.SerializeToString(deterministic=True) for event in evidence.replay}
    replaced = _replaced(evidence.replay)
    compared = [event for event in evidence.seen if event.sequence in stored or event.sequence not in replaced]
    lost = [
        event.sequence
        for event in compared
        if stored.get(event.sequence) != event.SerializeToString(deterministic=True)
    ]
    detail = f"differ: {lost}" if lost else f"{len(compared)} events compared"
    return Check("what was seen is replayed byte for byte", bool(compared) and not lost, detail)


def _killed(evidence: Evidence) -> Check:
    """The server died of SIGKILL in the middle of an answer; the turn was taken up again and brought to its end."""
    turn, before = _cut_off(evidence)
    after, words = evidence.seen[evidence.seen_before_kill :], len(before.split())
    taken_up = any(event.turn_started.resumed for event in after if event.turn == turn)
    ended = any(event.HasField("turn_finished") for event in after if event.turn == turn)
    good = evidence.killed == -signal.SIGKILL and 0 < words < evidence.words and taken_up and ended
    detail = f"it ended with {evidence.killed} at word {words} of {evidence.words}"
    told = "and the turn was taken up again" if taken_up else "and the turn was not taken up again"
    return Check("killed in the middle of an answer, the server goes on with it", good, f"{detail}, {told}")


def _prefix(evidence: Evidence) -> Check:
    """The text seen before the kill begins the final answer, which is the one it would have been."""
    turn, before = _cut_off(evidence)
    answer = next((text(message) for message in reversed(evidence.messages) if message.turn == turn), "")
    whole = answer.split() == [f"word{number}" for number in range(1, evidence.words + 1)]
    good = bool(before) and answer.startswith(before) and whole
    detail = f"{len(before.split())} of {len(answer.split())} words"
    return Check("what was seen before the kill begins the answer", good, detail)


def _cut_off(evidence: Evidence) -> tuple[str, str]:
    """The turn that ran when the server was killed, and the text that it had given."""
    before = evidence.seen[: evidence.seen_before_kill]
    turn = before[-1].turn if before else ""
    return turn, "".join(event.text_delta.text for event in before if event.turn == turn)


def _messages(evidence: Evidence) -> Check:
    """The messages are numbered without holes, and each that was sent is stored once."""
    numbers = [int(message.name.rpartition("/")[2]) for message in evidence.messages]
    said = [text(message) for message in evidence.messages if message.role == event_pb2.MESSAGE_ROLE_USER]
    good = bool(said) and numbers == list(range(1, len(numbers) + 1)) and said == list(evidence.said)
    return Check("every message is stored once", good, f"{len(numbers)} messages")


def _asked(departures: Departures) -> Check:
    """The MCP server changed nothing while the question was open, and what was allowed once."""
    before, after = departures.changes_when_asked, departures.changes
    detail = f"{len(after)} change" if after == [CHANGED] else f"before the answer {before}, in the end {after}"
    return Check("what was asked about happened after the answer, once", before == [] and after == [CHANGED], detail)


def text(message: event_pb2.Message) -> str:
    """The text of a message."""
    return "".join(part.text for part in message.parts)


def _replaced(events: Sequence[event_pb2.Event]) -> set[int]:
    """The sequences that messages stand for."""
    ranges = [event.message_added.message.replaces for event in events if event.HasField("message_added")]
    ranges += [event.answer_restarted.replaces for event in events if event.HasField("answer_restarted")]
    return {number for one in ranges for number in range(one.first_sequence, one.last_sequence + 1)} - {0}
