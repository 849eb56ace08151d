"""Every command of the README and the guides works as it stands, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.cli.program import Program
from tests.docs.commands import GUIDES, README, commands_of
from tests.docs.settings import SETTINGS
from tests.docs.stage import Setting, Stage
from tests.fixtures.server import RunningServer

TEXTS = [text for text in (README, *GUIDES) if commands_of(text)]


@pytest.mark.parametrize("text", TEXTS, ids=[text.name for text in TEXTS])
async def test_the_commands_of_a_guide_work_as_they_stand(text: Path, server: RunningServer, tmp_path: Path) -> None:
    setting = SETTINGS.get(text.name, Setting())
    stage = Stage(Program(tmp_path, server.target, server.admin_key), tmp_path, setting)
    await stage.prepare()
    faults = []
    for command in commands_of(text):
        try:
            await stage.play(command)
        except (AssertionError, TimeoutError) as fault:
            faults.append(f"{text.name}:{command.line}: {command.text}: {str(fault)[:600]}")
    assert not faults, "\n\n".join(faults)
