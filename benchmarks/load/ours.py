"""A conversation with Stationmaster."""

from __future__ import annotations

import time
import uuid

from stationmaster.v1 import agent_pb2, event_pb2, session_pb2

from benchmarks.load.channel import DEADLINE, Metadata, channel, pairs, stream_call, unary_call
from benchmarks.load.conversation import Reply, expected

SERVICE = "/stationmaster.v1.SessionService"


def create_request() -> bytes:
    """A session of the model `demo`."""
    session = session_pb2.Session(spec=agent_pb2.AgentSpec(model="demo"))
    return session_pb2.CreateSessionRequest(session=session).SerializeToString()


class Ours:
    """Over one connection; every mutation with a request id, as our client sends it."""

    def __init__(self, target: str, metadata: Metadata) -> None:
        self._channel = channel(target)
        self._metadata = pairs(metadata)
        self._create = unary_call(self._channel, f"{SERVICE}/CreateSession")
        self._send = stream_call(self._channel, f"{SERVICE}/SendMessage")
        self._session = session_pb2.Session(spec=agent_pb2.AgentSpec(model="demo"))

    async def create(self) -> str:
        """A new session."""
        request = session_pb2.CreateSessionRequest(session=self._session, request_id=str(uuid.uuid4()))
        answer = await self._create(request.SerializeToString(), metadata=self._metadata, timeout=DEADLINE)
        return session_pb2.Session.FromString(answer).name

    async def send(self, session: str, words: int) -> Reply:
        """Ask for so many words."""
        request = session_pb2.SendMessageRequest(
            session=session, text=f"/say {words}", request_id=str(uuid.uuid4())
        ).SerializeToString()
        text: list[str] = []
        completed, first = False, 0.0
        began = time.perf_counter()
        async for raw in self._send(request, metadata=self._metadata, timeout=DEADLINE):
            for event in session_pb2.SendMessageResponse.FromString(raw).events:
                if event.HasField("text_delta"):
                    first = first or time.perf_counter() - began
                    text.append(event.text_delta.text)
                elif event.HasField("turn_finished"):
                    completed = event.turn_finished.state == event_pb2.TURN_STATE_COMPLETED
        seconds = time.perf_counter() - began
        return Reply(first, seconds, completed and "".join(text) == expected(words))

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()
