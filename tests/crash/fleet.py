"""Three servers on one database that are killed and started again, and calls that do not mind."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub

from tests.fixtures.server import ServerProcess, StartServer

SIZE = 3
# CANCELLED: by a server whose grace is over.
_TRY_ANOTHER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


@dataclass
class Fleet:
    """`environment` is that of each server. `folders`: a data folder each, of which the first has the key."""

    start_server: StartServer
    database_url: str
    folders: list[Path]
    environment: dict[str, str]
    chance: random.Random
    servers: list[ServerProcess] = field(default_factory=list)
    kills: int = 0

    async def start(self) -> None:
        """Start all, the first before the others: it makes the key."""
        self.servers = [await self._start(self.folders[0])]
        self.servers += await asyncio.gather(*(self._start(folder) for folder in self.folders[1:]))

    async def kill_some(self, *, gently: bool = False) -> None:
        """SIGKILL one or two at once, and start them again; `gently`: SIGTERM."""
        victims = self.chance.sample(range(len(self.servers)), self.chance.choice([1, 1, 2]))
        servers = [self.servers[number] for number in victims]
        await asyncio.gather(*(server.stop() if gently else server.kill() for server in servers))
        self.kills += len(victims)
        started = await asyncio.gather(*(self._start(self.folders[number]) for number in victims))
        for number, server in zip(victims, started, strict=True):
            self.servers[number] = server

    async def call(self, method: str, request: Any) -> Any:
        """Ask any server until one answers, for two minutes: a repeat has the same request id."""
        async with asyncio.timeout(120):
            while True:
                try:
                    async with self._any().channel(self._key) as channel:
                        return await getattr(TaskServiceStub(channel), method)(request, timeout=30)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in _TRY_ANOTHER:
                        raise

    async def follow(self, name: str) -> list[Any]:
        """The events of an execution to its end, on by way of another server whenever one dies."""
        events: list[Any] = []
        while True:
            after = events[-1].sequence if events else 0
            request = pb.WatchExecutionRequest(name=name, after_sequence=after)
            try:
                async with self._any().channel(self._key) as channel:
                    async for answer in TaskServiceStub(channel).WatchExecution(request):
                        events += answer.events
                return events
            except grpc.aio.AioRpcError as error:
                if error.code() not in _TRY_ANOTHER:
                    raise

    @property
    def _key(self) -> str:
        return self.servers[0].admin_key

    def _any(self) -> ServerProcess:
        return self.chance.choice(self.servers)

    async def _start(self, folder: Path) -> ServerProcess:
        return await self.start_server(database_url=self.database_url, folder=folder, environment=self.environment)


def install(folder: Path, module: Path, kind: str) -> dict[str, str]:
    """Make a distribution of a module that brings a kind of task; the environment that servers find it in."""
    folder.mkdir()
    shutil.copy(module, folder)
    information = folder / f"{module.stem}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.stem}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[stationmaster.task_kinds]\n{module.stem} = {module.stem}:{kind}\n")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))}
