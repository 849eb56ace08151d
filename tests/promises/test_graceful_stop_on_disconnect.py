"""SIGTERM while a client streams that wants its turn cancelled when it goes away: it is the server that goes away."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from stationmaster.v1 import event_pb2, session_pb2
from stationmaster.v1.session_pb2_grpc import SessionServiceStub
from stationmaster_client import Client

from tests.crash.test_kill import free_port
from tests.fixtures.server import StartServer
from tests.promises.test_graceful_stop import start
from tests.waiting import until

LIMIT = 60


async def read_until_it_breaks(stub: Any, request: session_pb2.SendMessageRequest, seen: list[event_pb2.Event]) -> None:
    """Stream a turn into `seen` to the end of the server."""
    async for batch in stub.SendMessage(request):
        seen.extend(batch.events)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/slow 15\n/say 300", "text_delta"),
        ('/tool files.write {"path": "a.txt", "content": "kept"}\n/say 3', "permission_requested"),
    ],
)
async def test_a_stopping_server_cancels_no_turn_of_a_client_that_is_still_there(
    server_process: StartServer, database_url: str, text: str, kind: str
) -> None:
    port = free_port()
    server = await start(server_process, database_url, port, "1s")
    seen: list[event_pb2.Event] = []
    async with asyncio.timeout(LIMIT), server.channel() as channel:
        stub: Any = SessionServiceStub(channel)
        made = session_pb2.Session()
        made.spec.model = "demo"
        made.spec.tools.append("files.*")
        session = await stub.CreateSession(session_pb2.CreateSessionRequest(session=made))
        request = session_pb2.SendMessageRequest(
            session=session.name, text=text, on_disconnect=session_pb2.ON_DISCONNECT_CANCEL
        )
        reading = asyncio.create_task(read_until_it_breaks(stub, request, seen))
        await until(lambda: has(seen, kind))
        assert await server.stop() == 0, server.text
        with pytest.raises(grpc.aio.AioRpcError):
            await reading
    await start(server_process, database_url, port, "1s")
    async with asyncio.timeout(LIMIT), Client.connect(server.target, server.admin_key) as client:
        turn = await client.sessions.turn(seen[0].turn)
    assert turn.state != event_pb2.TURN_STATE_CANCELLED


async def has(seen: list[event_pb2.Event], kind: str) -> bool:
    """Whether an event of a kind has come."""
    return any(event.WhichOneof("payload") == kind for event in seen)
