"""Targets of a whole server: tasks that clients change are in them at once, and operators see and rebuild them."""

from __future__ import annotations

import stat
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
import pytest_asyncio
import sqlite_vec
from google.protobuf.struct_pb2 import Struct
from stationmaster.v1 import maintenance_pb2 as pb
from stationmaster.v1 import task_pb2
from stationmaster.v1.maintenance_pb2_grpc import MaintenanceServiceStub
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_server.config import SettingsError

from tests.client.cli.program import Program
from tests.fixtures.server import RunningServer, running, server_settings
from tests.waiting import until

STORES = ("task-vector-store-sync", "task-graph-store-sync", "task-text-store-sync")


@pytest_asyncio.fixture
async def station(database_url: str, tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A whole server with every target."""
    targets = {
        "vectors": {"path": str(tmp_path / "sync" / "vectors.db")},
        "graph": {"path": str(tmp_path / "sync" / "graph")},
        "text": {"path": str(tmp_path / "sync" / "text.db")},
    }
    async with running(server_settings(tmp_path / "data", database_url, sync={"targets": targets})) as server:
        yield server


def found(path: Path, query: str, *args: object) -> list[str]:
    """What an own query of the file finds."""
    with closing(apsw.Connection(str(path))) as file:
        file.enable_load_extension(True)
        sqlite_vec.load(file)
        return [row[0] for row in file.execute(query, args)]


def task(text: str) -> task_pb2.Task:
    payload = Struct()
    payload.update({"url": "https://example.com/hook"})
    return task_pb2.Task(kind="webhook", display_name=text, payload=payload)


async def test_tasks_reach_the_stores_and_operators_see_and_rebuild_them(
    station: RunningServer, tmp_path: Path
) -> None:
    folder = tmp_path / "sync"
    texts = "SELECT task_id FROM texts f JOIN tasks t ON t.id = f.rowid WHERE texts MATCH ?"
    near = """SELECT task_id FROM vectors v JOIN tasks t ON t.id = v.id WHERE vector MATCH
              (SELECT vector FROM vectors w JOIN tasks u ON u.id = w.id WHERE task_id = ?) AND k = 2"""
    async with station.channel() as channel:
        tasks, services = TaskServiceStub(channel), MaintenanceServiceStub(channel)
        for name, text in (("wake", "wake the walrus"), ("feed", "feed the walrus"), ("sweep", "sweep the yard")):
            await tasks.CreateTask(task_pb2.CreateTaskRequest(task_id=name, task=task(text)))

        async def in_text() -> bool:
            return sorted(found(folder / "text.db", texts, "walrus")) == ["feed", "wake"]

        async def in_vectors() -> bool:
            return len(found(folder / "vectors.db", "SELECT task_id FROM tasks")) == 3

        await until(in_text)
        await until(in_vectors)
        assert sorted(found(folder / "vectors.db", near, "wake")) == ["feed", "wake"]
        await tasks.DeleteTask(task_pb2.DeleteTaskRequest(name="tasks/feed"))

        async def gone() -> bool:
            return found(folder / "text.db", texts, "walrus") == ["wake"]

        await until(gone)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if not path.is_symlink()}
        assert len(modes) > 3
        assert not {name for name, mode in modes.items() if mode & 0o077}, "others of the host read the tasks of all"

        async def asked(service: str, operation: str) -> pb.Operation:
            name = f"backgroundServices/{service}"
            begun = await services.TriggerOperation(pb.TriggerOperationRequest(service=name, operation=operation))

            async def ended() -> pb.Operation | None:
                now = await services.GetOperation(pb.GetOperationRequest(name=begun.name))
                return now if now.HasField("finish_time") else None

            operation_now = await until(ended)
            assert operation_now is not None
            assert operation_now.state == pb.OPERATION_STATE_SUCCEEDED, operation_now.error
            return operation_now

        for service in (*STORES, "task-vector-sync", "task-graph-sync"):
            before = await services.GetBackgroundService(
                pb.GetBackgroundServiceRequest(name=f"backgroundServices/{service}")
            )
            assert (await asked(service, "resync")).result["generation"] == 1

            async def exact(service: str = service) -> bool:
                return (await asked(service, "check")).result["differences"] == 0

            await until(exact)
            shown = await services.GetBackgroundService(pb.GetBackgroundServiceRequest(name=before.name))
            (target,) = shown.targets
            assert target.cursor
            assert target.place == "PostgreSQL" if service not in STORES else target.place.partition(":")[2]
    stationmaster = Program(tmp_path, station.target, station.admin_key)
    shown_to_people = [("services", "show", service) for service in ("task-graph-store-sync", "task-vector-sync")]
    graph, vectors = await stationmaster.many(shown_to_people)
    assert (graph.code, vectors.code) == (0, 0)
    assert "CURSOR" in graph.out
    assert "LAG" in graph.out
    assert "PostgreSQL" in vectors.out


async def test_settings_that_cannot_be_stop_the_start_and_say_what_to_do(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="same path"):
        server_settings(tmp_path, None, sync={"targets": {"text": {"path": "/x"}, "vectors": {"path": "/x"}}})
    with pytest.raises(SettingsError, match="absolute"):
        server_settings(tmp_path, None, sync={"targets": {"text": {"path": "x.db"}}})
    monkeypatch.setitem(sys.modules, "pyoxigraph", None)  # as where the extra is not installed
    monkeypatch.delitem(sys.modules, "stationmaster_server.tasks.sync.stores.graph_store", raising=False)
    graph = {"targets": {"graph": {"path": str(tmp_path / "graph")}}}
    with pytest.raises(SettingsError, match=r"sync.targets.graph.path: .* pip install 'stationmaster\[sync\]'"):
        async with running(server_settings(tmp_path / "data", database_url, sync=graph)):
            pass
