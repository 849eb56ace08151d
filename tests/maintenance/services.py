"""Services that misbehave as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from stationmaster_server.maintenance.base import BackgroundService, Options
from stationmaster_server.maintenance.model import Policy, Scope

QUICK = Policy(timedelta(milliseconds=20), retry_delay=timedelta(milliseconds=20))


class SampleOptions(Options):
    """What a sample can be told."""

    word: str = "default"


class Sample(BackgroundService[SampleOptions]):
    """Calls `do` for each run, and notes what happens to it."""

    options = SampleOptions
    description = "A sample."

    def __init__(
        self,
        do: Callable[[], Awaitable[object]],
        *,
        service_id: str = "sample",
        scope: Scope = Scope.EVERY_SERVER,
        time_limit: timedelta = timedelta(seconds=30),
        policy: Policy = QUICK,
        channel: str | None = None,
    ) -> None:
        self.service_id = service_id
        self.scope = scope
        self.time_limit = time_limit
        self.policy = policy
        self.channel = channel
        self._do = do
        self.runs: list[float] = []
        self.words: list[str] = []
        self.cleanups = 0

    def do(self, do: Callable[[], Awaitable[object]]) -> None:
        """Do something else from now on."""
        self._do = do

    async def configure(self, options: SampleOptions) -> None:
        """Note the word."""
        self.words.append(options.word)

    async def update(self) -> None:
        """Note the time, and do it."""
        self.runs.append(asyncio.get_running_loop().time())
        await self._do()

    async def cleanup(self) -> None:
        """Count it."""
        self.cleanups += 1
