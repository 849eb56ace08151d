"""A conversation on the terminal."""

from __future__ import annotations

from io import StringIO

import pytest
from google.protobuf.struct_pb2 import Struct
from rich.console import Console
from stationmaster.v1 import event_pb2
from stationmaster_client import Interruption, errors
from stationmaster_client.cli.transcript import Transcript, shorten
from stationmaster_client.cli.transcript import arguments as on_one_line


class Screen:
    """A transcript and what it printed."""

    def __init__(self, *, everything: bool = False) -> None:
        self._file = StringIO()
        console = Console(file=self._file, width=80, markup=False, highlight=False, emoji=False)
        self.transcript = Transcript(console, everything=everything)

    def show(self, **payload: object) -> None:
        self.transcript.show(event_pb2.Event(**payload))  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        return self._file.getvalue()


@pytest.fixture
def screen() -> Screen:
    return Screen()


def assistant(text: str) -> event_pb2.MessageAdded:
    message = event_pb2.Message(role=event_pb2.MESSAGE_ROLE_ASSISTANT, parts=[event_pb2.MessagePart(text=text)])
    return event_pb2.MessageAdded(message=message)


def test_deltas_flow_into_one_line_and_their_message_is_not_printed_again(screen: Screen) -> None:
    screen.show(text_delta=event_pb2.TextDelta(text="good "))
    screen.show(text_delta=event_pb2.TextDelta(text="day"))
    screen.show(message_added=assistant("good day"))
    assert screen.text == "good day\n"


def test_what_was_compacted_before_it_was_read_is_printed_from_the_message(screen: Screen) -> None:
    screen.show(text_delta=event_pb2.TextDelta(text="good "))
    screen.show(message_added=assistant("good day"))
    screen.show(message_added=assistant("and good night"))
    assert screen.text == "good day\nand good night\n"


def test_text_that_looks_like_markup_is_printed_as_it_is(screen: Screen) -> None:
    screen.show(text_delta=event_pb2.TextDelta(text="[bold]x[/bold] :smile:\n"))
    assert screen.text == "[bold]x[/bold] :smile:\n"


def test_text_cannot_steer_the_terminal(screen: Screen) -> None:
    screen.show(text_delta=event_pb2.TextDelta(text="a\x1b[2Jb\x07c\u202ed\r\n\te\n"))
    assert screen.text == "a�[2Jb�c�d\n\te\n"


def test_whole_numbers_in_arguments_are_shown_as_such() -> None:
    struct = Struct()
    struct.update({"platform": 7, "delays": [1, 2.5], "on": True, "train": {"cars": 12}})
    assert on_one_line(struct) == '{"delays": [1, 2.5], "on": true, "platform": 7, "train": {"cars": 12}}'


def test_a_tool_call_has_a_line_for_its_arguments_and_one_for_its_result(screen: Screen) -> None:
    arguments = Struct()
    arguments.update({"path": "notes.txt"})
    call = event_pb2.ToolCall(call_id="1", tool="files.read", arguments=arguments)
    result = event_pb2.ToolResult(call_id="1", tool="files.read", content="first\nsecond")
    screen.show(text_delta=event_pb2.TextDelta(text="let me look"))
    screen.show(tool_call_started=event_pb2.ToolCallStarted(call=call))
    screen.show(tool_call_finished=event_pb2.ToolCallFinished(result=result))
    assert screen.text == 'let me look\n⚙ files.read {"path": "notes.txt"}\n  ✓ first … (0 ms)\n'


def test_what_an_mcp_server_says_has_a_line_of_its_own_and_names_it(screen: Screen) -> None:
    missing = "MCP server 'board' is not available:\nit ended"
    screen.show(mcp_message=event_pb2.McpMessage(mcp_server="mcpServers/board", level="error", text=missing))
    screen.show(mcp_message=event_pb2.McpMessage(mcp_server="mcpServers/board", level="info", text="\x1b[2Jstep 1"))
    assert screen.text == "  ! board: MCP server 'board' is not available: …\n  · board: \ufffd[2Jstep 1\n"


def test_a_lost_connection_is_told_once_and_so_is_its_return(screen: Screen) -> None:
    lost = Interruption(errors.Unavailable("gone"), 1, 0.1, 7)
    screen.show(text_delta=event_pb2.TextDelta(text="one "))
    screen.transcript.interrupted(lost)
    screen.transcript.interrupted(lost)
    screen.show(text_delta=event_pb2.TextDelta(text="two"))
    assert screen.text == "one \n⚡ connection lost, going on after event 7\n↻ connected again\ntwo"


def test_an_answer_that_is_given_again_says_so(screen: Screen) -> None:
    screen.show(text_delta=event_pb2.TextDelta(text="word1 wo"))
    screen.show(answer_restarted=event_pb2.AnswerRestarted())
    screen.show(text_delta=event_pb2.TextDelta(text="word1 word2"))
    screen.show(message_added=assistant("word1 word2"))
    assert screen.text == "word1 wo\n↺ the answer was cut off and is given again\nword1 word2\n"


def test_a_turn_that_failed_says_why(screen: Screen) -> None:
    end = event_pb2.TurnFinished(state=event_pb2.TURN_STATE_FAILED, reason="MODEL_UNAVAILABLE", message="no such model")
    screen.show(turn_finished=end)
    assert "failed" in screen.text
    assert "no such model" in screen.text


def test_who_only_watches_sees_the_user_and_how_to_answer() -> None:
    screen = Screen(everything=True)
    user = event_pb2.Message(role=event_pb2.MESSAGE_ROLE_USER, parts=[event_pb2.MessagePart(text="hello")])
    screen.show(message_added=event_pb2.MessageAdded(message=user))
    asked = event_pb2.PermissionRequested(
        permission_request="sessions/1/permissionRequests/2", call=event_pb2.ToolCall(tool="files.write")
    )
    screen.show(permission_requested=asked)
    assert "» hello" in screen.text
    assert "stationmaster permissions allow sessions/1/permissionRequests/2" in screen.text


def test_long_results_are_cut_to_a_line() -> None:
    assert shorten("x" * 300).endswith("x …")
    assert len(shorten("x" * 300)) < 110
    assert shorten("") == ""


def test_folded_text_breaks_between_words_at_the_edge() -> None:
    file = StringIO()
    transcript = Transcript(Console(file=file, width=12), fold=True)
    for text in ("one two ", "three four", " five\nsix"):
        transcript.show(event_pb2.Event(text_delta=event_pb2.TextDelta(text=text)))
    assert file.getvalue() == "one two \nthree four \nfive\nsix"
