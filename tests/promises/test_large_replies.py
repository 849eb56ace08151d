"""However much is said, a client with gRPC's own limit of 4 MiB a message reads it: live, again and in pages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from stationmaster.v1 import event_pb2, session_pb2
from stationmaster.v1.session_pb2_grpc import SessionServiceStub

from tests.fixtures.server import RunningServer

LIMIT = 60
READS = 20
MIB = 1024 * 1024


async def talk(server: RunningServer, stub: Any, texts: list[str]) -> tuple[str, list[event_pb2.Event]]:
    """A session whose workspace has a file of 300 KiB, and the events of its turns."""
    made = session_pb2.Session()
    made.spec.model = "demo"
    made.spec.tools.append("files.*")
    session = await stub.CreateSession(session_pb2.CreateSessionRequest(session=made))
    folder = next((server.settings.data_folder / "workspaces").rglob(session.name.partition("/")[2]))
    (folder / "big.txt").write_text("x" * 300 * 1024)
    events: list[event_pb2.Event] = []
    for text in texts:
        request = session_pb2.SendMessageRequest(session=session.name, text=text)
        async for batch in stub.SendMessage(request):
            events += batch.events
    return session.name, events


async def watched(stub: Any, session: str, last: int) -> list[event_pb2.Event]:
    """The events of a session, from the first to this sequence."""
    events: list[event_pb2.Event] = []
    async for batch in stub.WatchSession(session_pb2.WatchSessionRequest(name=session)):
        if batch.events:
            assert batch.last_sequence >= batch.events[-1].sequence
            assert batch.ByteSize() < 2.5 * MIB
        events += batch.events
        if batch.last_sequence >= last:
            break
    return events


async def listed(stub: Any, session: str) -> list[event_pb2.Message]:
    """All messages of a session, by pages that are as large as may be asked for."""
    messages: list[event_pb2.Message] = []
    request = session_pb2.ListMessagesRequest(parent=session, page_size=1000)
    while True:
        page = await stub.ListMessages(request)
        messages += page.messages
        if not page.next_page_token:
            return messages
        request.page_token = page.next_page_token


async def test_a_step_of_many_large_results_is_readable(server: RunningServer) -> None:
    reads = ["/tool files.read " + json.dumps({"path": "big.txt"})] * READS
    text = "\n".join(["/tools", *reads, "/say 3"])
    async with asyncio.timeout(LIMIT), server.channel() as channel:
        stub: Any = SessionServiceStub(channel)
        session, sent = await talk(server, stub, [text] * 3)
        replayed = await watched(stub, session, sent[-1].sequence)
        messages = await listed(stub, session)
    assert sent[-1].turn_finished.state == event_pb2.TURN_STATE_COMPLETED
    results = [event.tool_call_finished.result for event in sent if event.HasField("tool_call_finished")]
    assert len(results) == 3 * READS
    assert not any(result.is_error for result in results)
    assert [event.sequence for event in replayed] == list(range(1, sent[-1].sequence + 1))
    tools = [message for message in messages if message.role == event_pb2.MESSAGE_ROLE_TOOL]
    assert [len(message.parts) for message in tools] == [READS] * 3
    assert len(messages) == 3 * 4


async def test_a_search_through_large_messages_is_readable(server: RunningServer) -> None:
    text = "/say 1\n" + "papaya " * (1_000_000 // 7)
    async with asyncio.timeout(LIMIT), server.channel() as channel:
        stub: Any = SessionServiceStub(channel)
        session, _ = await talk(server, stub, [text] * 5)
        request = session_pb2.SearchMessagesRequest(parent=session, query="papaya", page_size=1000)
        found: list[str] = []
        while True:
            page = await stub.SearchMessages(request)
            found += [hit.message.name for hit in page.hits if hit.message.role == event_pb2.MESSAGE_ROLE_USER]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    assert len(found) == len(set(found)) == 5


async def test_large_messages_are_replayed_a_few_at_a_time(server: RunningServer) -> None:
    text = "/say 1\n" + "papaya " * (1_000_000 // 7)
    async with asyncio.timeout(LIMIT), server.channel() as channel:
        stub: Any = SessionServiceStub(channel)
        session, sent = await talk(server, stub, [text] * 5)
        replayed = await watched(stub, session, sent[-1].sequence)
    assert [event.sequence for event in replayed] == list(range(1, sent[-1].sequence + 1))
