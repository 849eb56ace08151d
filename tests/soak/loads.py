"""What callers do all the while, and what each of them must find at the end. They go on over whatever is killed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import event_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster_client import Client, errors
from stationmaster_server.wire.fields import struct

T = TypeVar("T")
PATIENT = pb.ExecutionRetryPolicy(max_attempts=100, initial_delay=Duration(nanos=1_000_000), factor=1)
_TURNS_OF_A_SESSION = 20


@dataclass
class Loads:
    """What was done, to be looked for afterwards."""

    clients: list[Client]
    stop: asyncio.Event
    calls: int = 0
    said: dict[str, list[str]] = field(default_factory=dict)
    """The messages of each session, in order."""
    executions: list[str] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    """The resources of the audit events that were recorded."""

    def all(self) -> list[Callable[[Client], Coroutine[None, None, None]]]:
        """One caller each; those that talk are several."""
        return [self.talk, self.talk, self.talk, self.submit, self.record, self.read]

    async def talk(self, client: Client) -> None:
        """Converse; each answer is whole, and each event comes once and in order."""
        while not self.stop.is_set():
            session = (await self._done(lambda request: client.sessions.create(model="demo", request_id=request))).name
            self.said[session] = []
            for number in range(_TURNS_OF_A_SESSION):
                if self.stop.is_set():
                    return
                text = f"/slow 20\n/say {random.randint(1, 60)}\n{number}"
                self.said[session].append(text)
                async with client.sessions.send(session, text) as stream:
                    events = [event.sequence async for event in stream]
                self.calls += 1
                assert events == sorted(set(events)), f"{session}: {events}"

    async def submit(self, client: Client) -> None:
        """Submit executions whose effects are fenced, and follow one of each batch to its end."""
        while not self.stop.is_set():
            specs = [
                pb.ExecutionSpec(
                    kind="fenced",
                    payload=struct({"steps": 2, "fail": number % 2}),
                    options=pb.ExecutionOptions(retry=PATIENT),
                )
                for number in range(10)
            ]
            names = await self._done(partial(self._submit, client, specs))
            self.executions += names
            async with client.executions.watch(names[0]) as stream:
                sequences = [event.sequence async for event in stream]
            assert sequences == list(range(1, len(sequences) + 1))

    async def _submit(self, client: Client, specs: list[pb.ExecutionSpec], request: str) -> Sequence[str]:
        return await client.executions.submit_many(specs, request_id=request)

    async def record(self, client: Client) -> None:
        """Record audit events."""
        while not self.stop.is_set():
            resource = f"soak/{uuid4()}"
            await self._done(partial(self._record, client, resource))
            self.recorded.append(resource)
            await asyncio.sleep(0.05)

    async def _record(self, client: Client, resource: str, request: str) -> object:
        return await client.audit.record("custom.soak", resource, request_id=request)

    async def read(self, client: Client) -> None:
        """Read what the hot paths read."""
        await self._done(lambda request: client.prompts.create("soak", "Hello {{ name }}", request_id=request))
        while not self.stop.is_set():
            shown = await self._done(lambda _: client.prompts.render("soak", {"name": "Ada"}))
            assert shown.text == "Hello Ada"
            await self._done(lambda _: client.whoami())
            await asyncio.sleep(0.02)

    async def check_sessions(self) -> int:
        """Each message is there once, in its order, with one answer that is complete. How many there are."""
        client = self.clients[0]
        for session, said in self.said.items():
            messages = [message async for message in client.sessions.messages(session)]
            told = [_text(message) for message in messages if message.role == event_pb2.MESSAGE_ROLE_USER]
            assert told == said, session
            turns = Counter([turn.state async for turn in client.sessions.turns(session)])
            assert turns == Counter({event_pb2.TURN_STATE_COMPLETED: len(said)}), f"{session}: {turns}"
        return sum(map(len, self.said.values()))

    async def _done(self, call: Callable[[str], Awaitable[T]]) -> T:
        """Repeat a request, always the same, until it is answered."""
        request = str(uuid4())
        while True:
            try:
                answer = await call(request)
            except (errors.Unavailable, errors.DeadlineExceeded, errors.Cancelled):
                await asyncio.sleep(0.1)
            else:
                self.calls += 1
                return answer


def _text(message: event_pb2.Message) -> str:
    return "".join(part.text for part in message.parts)
