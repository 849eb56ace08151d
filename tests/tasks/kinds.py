"""A kind of task that tests steer."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar

from pydantic import BaseModel
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Later, Payload


class SteeredPayload(Payload):
    """What it does: say something, hand back `later` times, wait for `gate`, fail so often, then answer."""

    text: str = ""
    later: int = 0
    fail: int = 0
    retryable: bool = True
    gate: str = ""
    steps: int = 0
    lines: int = 0
    last_words: str = ""


class Steered:
    """Says its text, waits for its gate to be opened, fails as often as it is told, and ends."""

    name: ClassVar[str] = "steered"
    payload: ClassVar[type[BaseModel]] = SteeredPayload

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.begun: list[Any] = []
        self.handed_back: Counter[Any] = Counter()

    def gate(self, name: str) -> asyncio.Event:
        """The gate of a name."""
        return self.gates.setdefault(name, asyncio.Event())

    async def run(self, job: Job[SteeredPayload]) -> Done:
        """Run."""
        payload = job.payload
        self.begun.append(job.execution_id)
        if payload.text:
            job.log(payload.text)
        for line in range(1, payload.lines + 1):
            job.log(f"line {line}")
            await (job.drain() if line % 500 == 0 else asyncio.sleep(0))
        for step in range(payload.steps):
            job.progress((step + 1) / payload.steps, f"step {step + 1}", {"steps": step + 1})
        if self.handed_back[job.execution_id] < payload.later:
            self.handed_back[job.execution_id] += 1
            raise Later(timedelta(milliseconds=1))
        if payload.gate:
            await self.gate(payload.gate).wait()
        if payload.last_words:
            job.log(payload.last_words)
        if job.attempt <= payload.fail:
            raise KindFailed(f"attempt {job.attempt} fails as it was told", reason="TOLD", retryable=payload.retryable)
        return Done({"text": payload.text, "attempt": job.attempt})
