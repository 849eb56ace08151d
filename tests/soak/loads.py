"""What callers do all the while, and what each of them must find at the end. They go on over whatever is killed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar
from uuid import uuid4

from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import event_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster_client import Client, errors
from stationmaster_server.wire.fields import struct

from tests.waiting import until

T = TypeVar("T")
PATIENT = pb.ExecutionRetryPolicy(max_attempts=100, initial_delay=Duration(nanos=1_000_000), factor=1)
_TURNS_OF_A_SESSION = 20


class Question(NamedTuple):
    """A message, and how many words its answer has."""

    text: str
    words: int

    @property
    def answer(self) -> list[str]:
        """What has to be answered, as it would be were nothing killed."""
        return [f"word{number}" for number in range(1, self.words + 1)]


@dataclass
class Loads:
    """What was done, to be looked for afterwards."""

    clients: list[Client]
    stop: asyncio.Event
    calls: int = 0
    done: Counter[str] = field(default_factory=Counter)
    """How often each caller came round."""
    said: dict[str, list[Question]] = field(default_factory=dict)
    """What was asked in each session, in order."""
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
                words = random.randint(1, 60)
                question = Question(f"/slow 20\n/think of {number}\n/say {words}", words)
                self.said[session].append(question)
                async with client.sessions.send(session, question.text) as stream:
                    events = [event async for event in stream]
                self.calls += 1
                self.done["talk"] += 1
                assert events[-1].turn_finished.state == event_pb2.TURN_STATE_COMPLETED, f"{session}: {events[-1]}"
                sequences = [event.sequence for event in events]
                assert sequences == list(range(sequences[0], sequences[-1] + 1)), f"{session}: {sequences}"

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
                events = [event async for event in stream]
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert events[-1].execution_state_changed.state == "SUCCEEDED"
            self.done["submit"] += 1

    async def _submit(self, client: Client, specs: list[pb.ExecutionSpec], request: str) -> Sequence[str]:
        return await client.executions.submit_many(specs, request_id=request)

    async def record(self, client: Client) -> None:
        """Record audit events."""
        while not self.stop.is_set():
            resource = f"soak/{uuid4()}"
            await self._done(partial(self._record, client, resource))
            self.recorded.append(resource)
            self.done["record"] += 1
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
            self.done["read"] += 1
            await asyncio.sleep(0.02)

    async def all_come_round(self) -> None:
        """Wait until each caller has done something more."""
        before = Counter(self.done)

        async def came_round() -> bool:
            return all(self.done[caller.__name__] > before[caller.__name__] for caller in self.all())

        await until(came_round, seconds=60)

    async def check_sessions(self) -> int:
        """Each message is there once, in its order, with one answer that is complete. How many there are."""
        client = self.clients[0]
        for session, said in self.said.items():
            messages = [message async for message in client.sessions.messages(session)]
            told = [_text(message) for message in messages if message.role == event_pb2.MESSAGE_ROLE_USER]
            assert told == [question.text for question in said], session
            answers = [
                _text(message).split() for message in messages if message.role == event_pb2.MESSAGE_ROLE_ASSISTANT
            ]
            assert answers == [question.answer for question in said], session
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
