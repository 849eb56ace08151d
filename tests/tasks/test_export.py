"""The kind `export`, from a caller of TaskService to the files."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import agent_pb2, identity_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client import Client
from stationmaster_client.structs import values
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.workspace import Workspace
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer, running, server_settings
from tests.tasks.kinds import Steered

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

FAST = pb.ExecutionOptions(retry=pb.ExecutionRetryPolicy(initial_delay=Duration(nanos=1_000_000)))


async def exported(tasks: TaskServiceAsyncStub, **payload: Any) -> pb.Execution:
    """An export at its end."""
    spec = pb.ExecutionSpec(kind="export", payload=struct(payload), options=FAST)
    name = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))).name
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


def files_of(station: RunningServer, execution: pb.Execution) -> dict[str, bytes]:
    """The files by what they are of, after comparing them with the manifest."""
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED, execution.message
    result = values(execution.result)
    name = result["workspace"].partition("/")[2]
    (root,) = (
        path for path in (station.settings.data_folder / "workspaces").rglob(name) if (path / "exports").is_dir()
    )
    assert json.loads((root / result["manifest"]).read_text())["files"] == result["files"]
    found = {}
    for file in result["files"]:
        content = (root / file["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size_bytes"], file["sha256"])
        found[file["what"]] = content
    assert not list(root.rglob("*.part"))
    return found


def lines(content: bytes) -> list[dict[str, Any]]:
    """The rows of JSON lines."""
    return [json.loads(line) for line in content.splitlines()]


async def talked(client: Client, name: str, text: str = "Say hello.") -> str:
    """A session with two messages."""
    session = await client.sessions.create(spec=agent_pb2.AgentSpec(model="demo"), display_name=name)
    async with client.sessions.send(session.name, text) as sent:
        async for _ in sent:
            pass
    return session.name


async def test_everything_is_exported_as_json_lines_with_a_manifest(
    station: RunningServer, tasks: TaskServiceAsyncStub
) -> None:
    async with Client.connect(station.target, station.admin_key) as client:
        session = await talked(client, "one")
    await tasks.CreateTask(
        pb.CreateTaskRequest(task_id="daily", task=pb.Task(kind="steered", payload=struct({"text": "hello"})))
    )
    execution = await exported(tasks, what=["sessions", "messages", "audit", "tasks", "executions"])
    files = files_of(station, execution)
    (row,) = lines(files["sessions"])
    assert (row["name"], row["display_name"], row["message_count"]) == (session, "one", 2)
    messages = lines(files["messages"])
    assert [(message["number"], message["role"]) for message in messages] == [(1, "USER"), (2, "ASSISTANT")]
    assert messages[0]["text"] == "Say hello."
    assert messages[0]["parts"][0]["text"] == "Say hello."
    assert {"session.create", "task.create", "execution.submit"} <= {row["action"] for row in lines(files["audit"])}
    assert [row["payload"] for row in lines(files["tasks"])] == [{"text": "hello"}]
    assert [row["name"] for row in lines(files["executions"])] == [execution.name]
    assert all(file["complete"] for file in values(execution.result)["files"])


async def test_pages_filters_limits_and_times_are_kept_to(station: RunningServer, tasks: TaskServiceAsyncStub) -> None:
    specs = [pb.ExecutionSpec(kind="steered", payload=struct({"text": str(n)})) for n in range(230)]
    await tasks.BatchSubmitExecutions(pb.BatchSubmitExecutionsRequest(executions=specs))
    only = {"executions": 'kind = "steered"'}
    every = await exported(tasks, what=["executions"], filters=only)
    rows = lines(files_of(station, every)["executions"])
    assert len({row["name"] for row in rows}) == len(rows) == 230
    assert [row["create_time"] for row in rows] == sorted(row["create_time"] for row in rows)
    some = await exported(tasks, what=["executions"], filters=only, limit=120)
    assert [row["name"] for row in lines(files_of(station, some)["executions"])] == [row["name"] for row in rows[:120]]
    assert [file["complete"] for file in values(some.result)["files"]] == [False]
    none = await exported(tasks, what=["executions"], filters=only, end_time="2020-01-01T00:00:00Z")
    assert files_of(station, none)["executions"] == b""


async def test_csv_has_one_header_and_no_formulas_unless_they_are_wanted(
    station: RunningServer, tasks: TaskServiceAsyncStub
) -> None:
    async with Client.connect(station.target, station.admin_key) as client:
        await talked(client, '=HYPERLINK("http://elsewhere"), "a"\nb')
    for wanted, prefix in ((False, "'"), (True, "")):
        execution = await exported(tasks, what=["sessions"], format="csv", csv_formulas=wanted)
        text = files_of(station, execution)["sessions"].decode()
        (row,) = csv.DictReader(io.StringIO(text, newline=""))
        assert row["display_name"] == prefix + '=HYPERLINK("http://elsewhere"), "a"\nb'
        assert (row["message_count"], row["cost_estimated"]) == ("2", "false")


async def test_parquet_has_typed_columns(station: RunningServer, tasks: TaskServiceAsyncStub) -> None:
    async with Client.connect(station.target, station.admin_key) as client:
        session = await talked(client, "one")
    execution = await exported(tasks, what=["sessions", "messages"], format="parquet")
    files = files_of(station, execution)
    parquet: Any = importlib.import_module("pyarrow.parquet")
    table = parquet.read_table(io.BytesIO(files["sessions"]))
    (row,) = table.to_pylist()
    assert (row["name"], row["message_count"], row["cost_estimated"]) == (session, 2, False)
    assert row["create_time"].tzinfo is not None
    assert parquet.read_table(io.BytesIO(files["messages"])).num_rows == 2


async def test_parquet_without_its_library_is_refused_with_what_to_do(
    tasks: TaskServiceAsyncStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    execution = await exported(tasks, what=["sessions"], format="parquet")
    assert execution.state == pb.EXECUTION_STATE_FAILED
    assert "pip install 'stationmaster[parquet]'" in execution.message
    assert len(execution.failed_attempts) == 1


async def test_files_go_into_the_workspace_of_a_session_that_is_named(
    station: RunningServer, tasks: TaskServiceAsyncStub
) -> None:
    async with Client.connect(station.target, station.admin_key) as client:
        session = await talked(client, "one")
    execution = await exported(tasks, what=["sessions"], session=session)
    assert values(execution.result)["workspace"] == session
    assert files_of(station, execution)["sessions"]
    missing = await exported(tasks, what=["sessions"], session=f"sessions/{uuid.uuid4()}")
    assert missing.failed_attempts[0].reason == "RESOURCE_NOT_FOUND"


async def test_members_get_their_own_and_no_audit(station: RunningServer, tasks: TaskServiceAsyncStub) -> None:
    async with Client.connect(station.target, station.admin_key) as admin:
        await talked(admin, "the administrator's")
        user = await admin.users.create(display_name="Ada", role=identity_pb2.ROLE_MEMBER)
        key = (await admin.keys.create(user=user.name)).secret
    async with Client.connect(station.target, key) as member, station.channel(key) as channel:
        session = await talked(member, "mine")
        stub = TaskServiceStub(channel)
        execution = await exported(stub, what=["sessions", "messages"])
        files = files_of(station, execution)
        assert [row["name"] for row in lines(files["sessions"])] == [session]
        assert {row["session"] for row in lines(files["messages"])} == {session}
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await exported(stub, what=["audit"])
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "audit.read" in (refused.value.details() or "")
    everything = await exported(tasks, what=["sessions"])
    assert len(lines(files_of(station, everything)["sessions"])) == 2


async def test_bad_filter_is_no_reason_to_try_again(tasks: TaskServiceAsyncStub) -> None:
    for wrong in ("colour = 1", 'state = "ACTIVE") OR (state = "ACTIVE"'):
        execution = await exported(tasks, what=["sessions"], filters={"sessions": wrong})
        assert execution.state == pb.EXECUTION_STATE_FAILED
        (attempt,) = execution.failed_attempts
        assert attempt.reason == "INVALID_FILTER"


async def test_bad_filter_is_refused_when_a_task_names_it(tasks: TaskServiceAsyncStub) -> None:
    payload = {"what": ["tasks", "sessions"], "filters": {"tasks": "state == foo", "sessions": "{{ which }}"}}
    task = pb.Task(kind="export", payload=struct(payload), variables=[pb.VariableDeclaration(name="which")])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.CreateTask(pb.CreateTaskRequest(task_id="nightly", task=task))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "task.payload.filters.tasks" in (refused.value.details() or "")
    assert "filters.sessions" not in (refused.value.details() or "")


async def test_attempt_after_a_crash_begins_anew_and_replaces_what_is_there(
    station: RunningServer, tasks: TaskServiceAsyncStub
) -> None:
    async with Client.connect(station.target, station.admin_key) as client:
        organization = (await client.whoami()).organization.name.partition("/")[2]
        session = await talked(client, "one")
    execution_id = str(uuid.uuid4())
    folder = (
        station.settings.data_folder / "workspaces/executions" / organization / execution_id / "exports" / execution_id
    )
    folder.mkdir(parents=True)
    (folder / "sessions.jsonl").write_text("of the attempt before")
    (folder / ".sessions.jsonl.0123.part").write_text("of an attempt that was killed")
    spec = pb.ExecutionSpec(kind="export", payload=struct({"what": ["sessions"]}))
    name = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec, execution_id=execution_id))).name
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    files = files_of(station, await tasks.GetExecution(pb.GetExecutionRequest(name=name)))
    assert [row["name"] for row in lines(files["sessions"])] == [session]
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "sessions.jsonl"]


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet"])
async def test_export_that_is_too_large_leaves_nothing(
    database_url: str, tmp_path: Path, steered: Steered, file_format: str
) -> None:
    settings = server_settings(tmp_path / "small", database_url, export={"max_bytes": 3_000})
    async with running(settings) as station, station.channel() as channel:
        stub = TaskServiceStub(channel)
        specs = [pb.ExecutionSpec(kind="steered") for _ in range(120)]
        await stub.BatchSubmitExecutions(pb.BatchSubmitExecutionsRequest(executions=specs))
        execution = await exported(stub, what=["audit", "executions"], format=file_format)
    assert execution.state == pb.EXECUTION_STATE_FAILED
    assert "export.max_bytes" in execution.message
    assert not [path for path in (tmp_path / "small/workspaces").rglob("*.part") if path.is_file()]
    assert not list((tmp_path / "small/workspaces").rglob("executions.*"))


def test_file_is_whole_or_not_there(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.replacing("a/b.txt") as file:
        file.write(b"first")
        assert not (tmp_path / "a/b.txt").exists()
    with pytest.raises(ZeroDivisionError), workspace.replacing("a/b.txt") as file:
        file.write(b"%d" % (1 // 0))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]
    assert (tmp_path / "a/b.txt").read_bytes() == b"first"
    (tmp_path / "a/.b.txt.0123.part").write_bytes(b"left by a crash")
    with workspace.replacing("a/b.txt") as file:
        file.write(b"third")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]
    (tmp_path / "outside").symlink_to(tmp_path.parent)
    with pytest.raises(PathRefused), workspace.replacing("outside/c.txt"):
        pass
