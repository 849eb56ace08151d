"""The examples of the guides work as they stand."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.client.cli.program import Program
from tests.fixtures.server import RunningServer

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "python-client.md"
EXAMPLES = [block for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL) if "connect()" in block]


@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example_of_the_guide_runs(example: str, server: RunningServer, tmp_path: Path) -> None:
    environment = Program(tmp_path, server.target, server.admin_key).environment()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", example), env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert "42" in out.decode()


def test_the_guide_has_an_example_for_both_clients() -> None:
    assert len(EXAMPLES) == 3
