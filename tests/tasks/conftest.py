"""A whole server that knows kinds of tasks which tests can steer, and a stub of its TaskService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from stationmaster.v1.task_pb2_grpc import TaskServiceStub

from tests.fixtures.server import RunningServer, running, server_settings
from tests.tasks.kinds import Steered

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


@pytest.fixture
def steered(monkeypatch: pytest.MonkeyPatch) -> Steered:
    """The kind `steered`, as a plug-in would bring it."""
    kind = Steered()
    monkeypatch.setattr("stationmaster_server.app.tasks.installed", lambda taken: [kind])
    return kind


@pytest_asyncio.fixture
async def station(database_url: str, tmp_path: Path, steered: Steered) -> AsyncIterator[RunningServer]:
    """A whole server on a fresh database."""
    async with running(server_settings(tmp_path / "data", database_url)) as server:
        yield server


@pytest_asyncio.fixture
async def tasks(station: RunningServer) -> AsyncIterator[TaskServiceAsyncStub]:
    """TaskService, as the administrator calls it."""
    async with station.channel() as channel:
        yield TaskServiceStub(channel)
