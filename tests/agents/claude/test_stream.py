"""Events are found wherever the body of an answer is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.agents.runtimes.claude import stream
from stationmaster_server.agents.runtimes.claude.stream import Events

EVENT = st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3)


@given(st.lists(EVENT, max_size=5), st.sampled_from([b"\n", b"\r\n"]), st.integers(1, 50))
def test_events_are_found_wherever_the_body_is_cut(events: list[dict[str, str]], end: bytes, size: int) -> None:
    written = [json.dumps(event, ensure_ascii=False).encode(errors="replace") for event in events]
    body = b"".join(b"event: x" + end + b"data: " + data + end + end + b": a comment" + end for data in written)
    found = Events()
    seen = [event for at in range(0, len(body), size) for event in found.feed(body[at : at + size])]
    assert seen == [json.loads(data) for data in written]


@pytest.mark.parametrize(
    "data", [b"1", b"{", b"[]", b"\xff", b"[" * 100_000], ids=["number", "broken", "list", "no text", "too deep"]
)
def test_what_is_no_event_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        list(Events().feed(b"data: " + data + b"\n\n"))


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: 1234567890\n" * 10])
def test_an_event_without_an_end_is_not_waited_for(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_EVENT_BYTES", 50)
    with pytest.raises(ValueError, match="without an end"):
        list(Events().feed(piece))
