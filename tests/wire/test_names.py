"""Resource names."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.wire.names import format_name, parse, parse_pair

ID = UUID("0199a0b0-0000-7000-8000-00000000000a")


def test_names_come_back_as_ids() -> None:
    session, turn = uuid4(), uuid4()
    assert parse("sessions/{session}", format_name("sessions/{session}", session)) == session
    pattern = "sessions/{session}/turns/{turn}"
    assert parse_pair(pattern, format_name(pattern, session, turn), UUID, UUID) == (session, turn)
    assert parse_pair("sessions/{s}/messages/{n}", f"sessions/{session}/messages/7", UUID, int) == (session, 7)
    assert parse("agents/{agent}", "agents/my-agent-2", str) == "my-agent-2"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "sessions/",
        "sessions/x",
        f"session/{ID}",
        f"sessions/{ID}/",
        f"/sessions/{ID}",
        f"sessions/{ID}\n",
        f"sessions/{str(ID).upper()}",
        f"sessions/{ID.hex}",
        f"sessions/{{{ID}}}",
        f"sessions/{ID}/turns/{ID}",
    ],
)
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse("sessions/{session}", name, field="session.name")
    assert refusal.value.reason is Reason.INVALID_NAME
    assert refusal.value.violations[0].field == "session.name"


@pytest.mark.parametrize("agent", ["", "A", "1a", "-a", "a_b", "a" * 64, "a/b", "ä", "a\n"])
def test_ids_that_callers_choose_have_a_form_too(agent: str) -> None:
    with pytest.raises(InvalidArgument):
        parse("agents/{agent}", f"agents/{agent}", str)


@pytest.mark.parametrize("number", ["", "-1", "01", "1.0", "\uff11", "9" * 19])
def test_numbers_are_plain(number: str) -> None:
    with pytest.raises(InvalidArgument):
        parse("things/{thing}", f"things/{number}", int)
