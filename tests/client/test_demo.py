"""`make demo`: nothing is lost, it says so, and nothing is left behind."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.scratch import scratch


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder that only the demo uses, and that PostgreSQL's own account can reach."""
    with scratch("stationmaster-demo-test-") as folder:
        yield folder


async def start(temporary: Path) -> asyncio.subprocess.Process:
    """Start the demo."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stationmaster_client.demo"),
        env={"TMPDIR": str(temporary), "PATH": "/usr/bin:/bin", "HOME": str(temporary), "NO_COLOR": "1"},
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


async def test_the_demo_loses_nothing_and_leaves_nothing(temporary: Path) -> None:
    demo = await start(temporary)
    out, err = await demo.communicate()
    assert demo.returncode == 0, out.decode() + err.decode()
    assert "Nothing was lost." in out.decode()
    assert "✗" not in out.decode()
    assert left_behind(temporary) == []


async def test_an_interrupted_demo_leaves_nothing(temporary: Path) -> None:
    demo = await start(temporary)
    assert demo.stdout is not None
    async for line in demo.stdout:
        if b"SERVING" in line:
            break
    demo.send_signal(signal.SIGTERM)
    await demo.communicate()
    assert demo.returncode == 130
    assert left_behind(temporary) == []
