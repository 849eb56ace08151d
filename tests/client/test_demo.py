"""`make demo`: nothing is lost, it says so, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from stationmaster_client.client import Client
from stationmaster_client.connection import Connection
from stationmaster_client.demo.__main__ import main
from stationmaster_client.demo.acts import audit, credentials
from stationmaster_client.demo.server import DemoFailure, Server
from stationmaster_client.demo.stage import Stage
from stationmaster_client.demo.story import Story

from tests.embedding.model import model_folder
from tests.fixtures.scratch import scratch

PROMISES = (
    "what was seen is replayed byte for byte",
    "killed in the middle of an answer, the server goes on with it",
    "what a tool writes is on disk",
    "an agent asks before what its rules say",
    "no file of the database or the logs has it in clear",
    "a label that moved is seen by the next render",
    "an experiment gives a passenger the same version each time",
    "each outcome counts for the version that was given",
    "the winner is what the label says from then on",
    "its report is a page with the conversation",
    "its schedule runs it too",
    "progress is streamed, and true in the end",
    "a file comes back as it went",
    "monitoring.sessions counts as the list of sessions does",
    "index-optimization runs when it is told to",
    "the exported trail verifies with its public key",
    "one changed letter is detected",
)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder that only the demo uses, and that PostgreSQL's own account can reach."""
    with scratch("stationmaster-demo-test-") as folder:
        yield folder


async def start(temporary: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Start the demo."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stationmaster_client.demo", *arguments),
        env={
            "TMPDIR": str(temporary),
            "PATH": "/usr/bin:/bin",
            "HOME": str(temporary),
            "NO_COLOR": "1",
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        },
        stdout=pipe,
        stderr=pipe,
    )


def left_behind(temporary: Path) -> list[str]:
    """What is in the folder, and processes that work there."""
    found = [str(path) for path in temporary.glob("stationmaster-demo-*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            used = (process / "cmdline").read_text() + str((process / "cwd").readlink())
        except OSError:
            continue
        if str(temporary) in used:
            found.append(used.replace("\0", " "))
    return found


async def test_the_demo_shows_every_service_loses_nothing_and_leaves_nothing(temporary: Path) -> None:
    demo = await start(temporary, "--model-folder", str(model_folder()))
    out, err = (told.decode() for told in await demo.communicate())
    assert demo.returncode == 0, out + err
    assert "Nothing was lost." in out
    assert "✗" not in out
    assert "by its meaning" in out
    table = out.partition("What this has shown")[2].splitlines()
    services = [row.split()[1] for row in table if row.startswith("✓   ")]
    shown = ["Session", "Agent", "MCP", "Identity", "Credential", "Prompt", "Task", "Storage", "Maintenance", "Audit"]
    assert [service for service in services if service in shown] == shown
    for promise in PROMISES:
        assert f"✓ {promise}" in out, promise
    assert left_behind(temporary) == []


def test_a_promise_that_is_not_kept_shows_and_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def tell(story: Story) -> bool:
        story._programme.check("Session", "nothing is lost", True, "1 to 9")
        story._programme.check("Audit", "the trail verifies", False, "event 3 was deleted")
        return story._close(1.0)

    monkeypatch.setattr(Story, "tell", tell)
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert main() == 1
    told = capsys.readouterr()
    assert "✗ the trail verifies  event 3 was deleted" in told.out
    assert "Nothing was lost" not in told.out
    assert "something is not as promised" in told.err


async def test_an_act_that_breaks_off_or_shows_nothing_is_a_row_that_was_not_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def broken(stage: Stage) -> None:
        raise DemoFailure("the report did not come within 60 s")

    async def surprised(stage: Stage) -> None:
        raise IndexError("list index out of range")

    async def idle(stage: Stage) -> None:
        stage.programme.fact("there would be something to see")

    async def whole(stage: Stage) -> None:
        stage.programme.check("Audit", "the trail verifies", True, "9 events")

    console = Console(width=120)
    story = Story(console, Server(Path(), None))
    async with Client(Connection("127.0.0.1:1")) as client:
        stage = Stage(client, Path(), "sessions/1", "agents/a", 1, False, story._programme)
        for service, play in (("Task", broken), ("Storage", surprised), ("Prompt", idle), ("Audit", whole)):
            await story._play(stage, service, play)
    assert story._close(1.0) is False
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    table = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert ["✗", "Task", "what belongs to it can be shown", "the report did not come within 60 s"] in table
    assert ["✗", "Storage", "what belongs to it can be shown", "IndexError: list index out of range"] in table
    assert ["✗", "Prompt", "what belongs to it can be shown", "nothing was shown"] in table
    assert ["✓", "Audit", "the trail verifies", "9 events"] in table


def test_a_demo_that_checked_nothing_has_kept_nothing() -> None:
    assert Story(Console(), Server(Path(), None))._close(1.0) is False


def test_a_search_for_a_secret_that_looked_at_nothing_shows_nothing(tmp_path: Path) -> None:
    note, secret = b"its description", b"s3cret"

    def kept() -> bool:
        return credentials._judged(*credentials._search(tmp_path, [note, secret]), [secret], note)[0]

    assert not kept()
    (tmp_path / "other").write_bytes(b"x" * 100)
    assert not kept()
    (tmp_path / "database").write_bytes(b"a row of " + note)
    assert kept()
    (tmp_path / "log").write_bytes(b"it is " + secret)
    assert not kept()


def test_a_bundle_that_was_tampered_with_is_not_called_signed() -> None:
    assert not audit._verified([b"{}\n"], []).startswith(audit.GOOD)


def test_the_demo_takes_nothing_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", "--fast"])
    assert main() == 1
    assert "--model-folder DIR" in capsys.readouterr().err


async def test_an_interrupted_demo_leaves_nothing(temporary: Path) -> None:
    demo = await start(temporary)
    assert demo.stdout is not None
    async for line in demo.stdout:
        if b"SERVING" in line:
            break
    assert len(left_behind(temporary)) > 2  # its folder, a server and a PostgreSQL: what is to be gone afterwards
    demo.send_signal(signal.SIGTERM)
    await demo.communicate()
    assert demo.returncode == 130
    assert left_behind(temporary) == []
