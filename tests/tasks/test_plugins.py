"""Plug-ins: the example for real, and those that are broken."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client.structs import values
from stationmaster_server.app.doctor import plugins as examined
from stationmaster_server.app.findings import Finding, Verdict
from stationmaster_server.tasks.kinds import plugins
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Payload
from stationmaster_server.tasks.kinds.rehearsal import Rehearsal
from stationmaster_server.wire.fields import struct

from tests.client.cli.program import Program
from tests.fixtures.server import StartServer, running, server_settings

EXAMPLE = Path(__file__).parents[2] / "examples/task-kind-plugin"


async def ran(*command: str, environment: dict[str, str] | None = None) -> str:
    """Run a command to its good end; what it said."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Where pip puts the plug-in."""
    return tmp_path / "plugins"


async def test_installed_example_runs_on_a_real_server(
    written: Path, server_process: StartServer, database_url: str
) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    await ran(*pip, "--target", str(written), str(EXAMPLE))
    path = os.pathsep.join([str(written), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    await ran(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull,
              "--rootdir", str(written), str(EXAMPLE / "tests"), environment=environment)  # fmt: skip
    server = await server_process(database_url=database_url, environment={"PYTHONPATH": path})
    async with server.channel() as channel:
        tasks = TaskServiceStub(channel)
        spec = pb.ExecutionSpec(kind="word_count", payload=struct({"texts": ["one two", "two"]}))
        name = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))).name
        events = [e async for a in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)) for e in a.events]
        execution = await tasks.GetExecution(pb.GetExecutionRequest(name=name))
        stats = await tasks.GetQueueStats(pb.GetQueueStatsRequest())
    program = Program(written, server.target, server.admin_key)
    readme = (EXAMPLE / "README.md").read_text()
    (command,) = (line for line in readme.splitlines() if "executions submit" in line)
    assert json.loads((await program(*shlex.split(command)[1:])).out)["words"] == 3
    python = readme.partition("```python\n")[2].partition("```")[0]
    assert await ran(sys.executable, "-c", python, environment=program.environment()) == "3 words\n"
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED, execution.message
    assert values(execution.result) == {"words": 3, "most": {"two": 2, "one": 1}}
    assert "3 words in 2 texts" in [e.execution_log.text for e in events if e.HasField("execution_log")]
    assert {"crawl", "prompt", "webhook", "word_count"} <= {kind.kind for kind in stats.kinds}


class Good:
    """A kind as it should be."""

    name = "good"
    payload = Payload

    async def run(self, job: Job[Payload]) -> Done:
        """Nothing."""
        return Done()


def _raises() -> None:
    raise RuntimeError("the plug-in is broken")


def _exits() -> None:
    sys.exit(3)


BROKEN: dict[str, Any] = {
    "RuntimeError: the plug-in is broken": _raises,
    "SystemExit: 3": _exits,
    "write one like `word_count`": type("BadName", (Good,), {"name": "Bad Name"}),
    "there is a kind 'prompt' already": type("Taken", (Good,), {"name": "prompt"}),
    "write a subclass of `Payload`": type("NoPayload", (Good,), {"payload": dict}),
    "it has no `async def run(self, job)`": type("NotAsync", (Good,), {"run": lambda self, job: None}),
    "its `name` is None": object,
    "TypeError: ": 17,
}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution of broken plug-ins, one that cannot be imported, and a good one."""
    module = ModuleType("stationmaster_broken_plugins")
    points = {f"broken_{number}": kind for number, kind in enumerate(BROKEN.values())} | {"good": Good}
    for name, kind in points.items():
        setattr(module, name, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    lines = [f"{name} = {module.__name__}:{name}" for name in points]
    lines += ["missing = stationmaster_no_such_module:Kind"]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{plugins.ENTRY_POINTS}]", *lines, ""]))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("broken")
def test_broken_plug_ins_are_told_of_and_harm_no_other(caplog: pytest.LogCaptureFixture) -> None:
    kinds = plugins.installed(["prompt"])
    assert [kind.name for kind in kinds] == ["good"]
    for problem in [*BROKEN, "ModuleNotFoundError: No module named 'stationmaster_no_such_module'"]:
        assert problem in caplog.text
    assert caplog.text.count("is left out") == len(BROKEN) + 1


@pytest.mark.usefixtures("broken")
def test_doctor_tells_which_plug_ins_there_are_and_what_is_wrong_with_others() -> None:
    findings = list(examined())
    assert Finding(Verdict.OK, "plug-ins", "the kind of tasks 'good'") in findings
    warnings = [str(finding) for finding in findings if finding.verdict is Verdict.WARN]
    assert len(warnings) == len(BROKEN) + 1


async def test_a_rehearsal_is_what_a_kind_needs() -> None:
    job = Rehearsal(Payload(), checkpoint={"n": 1}, attempt=2)
    await job.save({"n": 2})
    job.log("said")
    assert (job.checkpoint, job.attempt, job.lines) == ({"n": 2}, 2, [("info", "said")])
    assert await Good().run(job) == Done()


class NonsensePayload(Payload):
    """Which nonsense."""

    what: str


class Nonsense:
    """A kind that answers what it must not."""

    name = "nonsense"
    payload = NonsensePayload

    async def run(self, job: Job[NonsensePayload]) -> Any:
        """Nonsense."""
        match job.payload.what:
            case "nothing":
                pass
            case "not a number":
                return Done({"value": float("nan")})
            case "no json":
                return Done({"value": object()})
            case "too much":
                return Done({"value": "x" * 2_000_000})
            case "no level":
                job.log("text", "loud")
            case "no message":
                raise KindFailed(17, retryable=False)  # type: ignore[arg-type]
            case _:
                await job.save({"value": float("inf")})
        return None


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "the kind answered NoneType instead of Done"),
        ("not a number", "the result is no JSON that can be stored: Out of range float values"),
        ("no json", "the result is no JSON that can be stored: Object of type object is not JSON serializable"),
        ("too much", "the result has 2000012 bytes; 1048576 are allowed"),
        ("no level", "ValueError: there is no level 'loud'"),
        ("no message", "17"),
        ("no checkpoint", "ValueError: Out of range float values"),
    ],
)
async def test_nonsense_of_a_kind_is_a_failed_execution_that_says_so(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    monkeypatch.setattr("stationmaster_server.app.tasks.installed", lambda taken: [Nonsense()])
    once = pb.ExecutionOptions(retry=pb.ExecutionRetryPolicy(max_attempts=1))
    async with running(server_settings(tmp_path / "data", database_url)) as server, server.channel() as channel:
        tasks = TaskServiceStub(channel)
        spec = pb.ExecutionSpec(kind="nonsense", payload=struct({"what": what}), options=once)
        name = (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec))).name
        async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
            pass
        execution = await tasks.GetExecution(pb.GetExecutionRequest(name=name))
    assert execution.state == pb.EXECUTION_STATE_FAILED
    assert message in execution.message
