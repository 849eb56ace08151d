"""Every command of the README and the guides works as it stands, in its order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.cli.program import Program
from tests.docs.commands import GUIDES, PROGRAMS, README, ROOT, commands_of, not_run_in
from tests.docs.settings import SETTINGS
from tests.docs.stage import Setting, Stage, value_of
from tests.fixtures.server import RunningServer

TEXTS = [text for text in (README, *GUIDES) if commands_of(text)]


@pytest.mark.parametrize("text", TEXTS, ids=[text.name for text in TEXTS])
@pytest.mark.timeout(300)
async def test_the_commands_of_a_guide_work_as_they_stand(
    text: Path, server: RunningServer, database_url: str, tmp_path: Path
) -> None:
    setting = SETTINGS.get(text.name, Setting())
    stage = Stage(Program(tmp_path, server.target, server.admin_key), tmp_path, setting, database_url)
    await stage.prepare()
    faults = []
    not_run = not_run_in(text)
    for command in commands_of(text):
        if value_of(not_run, command.text, ""):
            continue
        try:
            await stage.play(command)
        except (AssertionError, TimeoutError) as fault:
            faults.append(f"{text.name}:{command.line}: {command.text}: {str(fault)[:600]}")
    assert not faults, "\n\n".join(faults)


def test_nothing_is_prepared_for_a_text_that_is_not_there() -> None:
    assert SETTINGS.keys() <= {text.name for text in TEXTS}


def test_what_no_test_of_guides_runs_is_little_and_has_a_reason() -> None:
    commands = [(text, command.text) for text in TEXTS for command in commands_of(text)]
    left = [(text.name, command) for text, command in commands if value_of(not_run_in(text), command, "")]
    assert len(commands) > 250
    assert len(left) < 56, left


def test_a_block_without_a_language_shows_commands_or_none() -> None:
    """A line of another form among commands would not be run: pasted, it would fail."""
    for text in (README, *GUIDES):
        for command in commands_of(text):
            first = command.text.split()[0]
            assert first in PROGRAMS or "=" in first, f"{text.name}:{command.line}: {command.text}"


def test_nothing_is_prepared_that_no_command_needs() -> None:
    """What is left over would hide a command that comes later."""
    unused, values = [], set()
    for text in TEXTS:
        setting, commands = SETTINGS.get(text.name, Setting()), [command.text for command in commands_of(text)]
        unused += [
            f"{text.name}: {beginning}"
            for beginning in (*not_run_in(text), *setting.endless, *setting.codes, *setting.typed)
            if not any(value_of({beginning: True}, command, False) for command in commands)
        ]
        values |= {shown for shown in setting.values if shown.removesuffix("$") in " ".join(commands)}
    unused += [shown for setting in SETTINGS.values() for shown in setting.values if shown not in values]
    assert unused == []


def test_the_tests_that_run_the_others_are_there() -> None:
    for text in TEXTS:
        for beginning, why in not_run_in(text).items():
            named = [part for part in why.replace(",", " ").replace(";", " ").split() if part.startswith("tests/")]
            assert [name for name in named if not (ROOT / name).exists()] == [], f"{text.name}: {beginning}"
