"""`stationmaster prompts` and `experiments` against the real server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from stationmaster_client.cli.errors import ExitCode

from tests.client.cli.program import Program, Result
from tests.fixtures.server import RunningServer


@pytest.fixture
def stationmaster(server: RunningServer, tmp_path: Path) -> Program:
    return Program(tmp_path, server.target, server.admin_key)


def parsed(result: Result) -> Any:
    assert result.code == 0, result.err
    return json.loads(result.out)


async def test_with_json_every_command_prints_json_and_nothing_else(stationmaster: Program) -> None:
    commands = [
        ("prompts", "create", "p", "-t", "Hello {{ name }}", "-l", "production", "-m", "first", "--name", "Greeting"),
        ("prompts", "update", "p", "-t", "Dear {{ name }}", "-m", "second"),
        ("prompts", "list"),
        ("prompts", "show", "p", "--label", "production"),
        ("prompts", "versions", "p"),
        ("prompts", "diff", "p"),
        ("prompts", "label", "p", "staging", "latest"),
        ("prompts", "render", "p", "-p", "name=Ada"),
        ("prompts", "select", "p"),
        ("prompts", "outcome", "p", "success", "1"),
        ("prompts", "analytics", "p", "--hourly"),
        ("prompts", "customize", "p", "-t", "mine", "--mode", "prepend"),
        ("prompts", "customizations", "p"),
        ("experiments", "create", "p", "--variant", "a=1", "--variant", "b=2:3", "--share", "0.5", "--start"),
        ("experiments", "list"),
        ("experiments", "show", "-"),
        ("experiments", "results", "-"),
        ("experiments", "stop", "-"),
        ("experiments", "conclude", "-", "--winner", "b"),
        ("prompts", "delete", "p"),
    ]
    results = await stationmaster.many([(*each, "--json") for each in commands])
    for each, result in zip(commands, results, strict=True):
        assert result.err == "", each
        parsed(result)
    shown = parsed(results[-2])
    assert (shown["state"], shown["winner"], shown["trafficShare"]) == ("EXPERIMENT_STATE_CONCLUDED", "b", 0.5)


async def test_an_experiment_is_named_by_the_end_of_its_id(stationmaster: Program) -> None:
    missing, _, made = await stationmaster.many(
        [
            ("experiments", "show", "-"),
            ("prompts", "create", "p", "-t", "x"),
            ("experiments", "create", "p", "--variant", "a=1", "--variant", "b=1", "--json"),
        ]
    )
    assert (missing.code, "there is no experiment yet" in missing.err) == (ExitCode.NOT_FOUND, True)
    name = parsed(made)["name"]
    assert parsed(await stationmaster("experiments", "show", name[-6:], "--json"))["name"] == name


async def test_people_see_tables_differences_and_reasons(stationmaster: Program) -> None:
    commands = [
        ("prompts", "create", "p", "-t", "Hello {{ name }}\nBe kind.", "-l", "production", "-m", "first"),
        ("prompts", "update", "p", "-t", "Hello {{ name }}\nBe brief.", "-m", "second"),
        ("prompts", "diff", "p"),
        ("prompts", "versions", "p"),
        ("prompts", "render", "p", "-p", "name=Ada"),
        ("prompts", "label", "p", "production", "2"),
        ("prompts", "label", "p", "production", "two"),
        ("prompts", "render", "p"),
        ("experiments", "create", "p", "--variant", "control=1", "--variant", "brief=2"),
        ("experiments", "start", "-"),
        ("prompts", "outcome", "p", "success", "1", "--experiment", "nope"),
        ("experiments", "results", "-"),
        ("prompts", "analytics", "p", "--total"),
        ("prompts", "label", "p", "production", "1"),
    ]
    results = await stationmaster.many(commands)
    made, _, diff, versions, rendered, moved, wrong, lacking, _, _, _, shown, figures, held = results
    assert "Hello {{ name }}" in made.out
    assert "-Be kind." in diff.out
    assert "+Be brief." in diff.out
    assert versions.out.index("second") < versions.out.index("first")
    assert rendered.out.startswith("Hello Ada")
    assert "prompts/p/versions/1 (default: production)" in rendered.err
    assert "points to version 2" in moved.out
    assert (wrong.code, "write a number" in wrong.err) == (2, True)
    assert "variables.name" in lacking.err
    assert "control" in shown.out
    assert "let it run" in shown.out
    assert "production" in figures.out
    assert "runs on its label" in held.err


async def test_edit_opens_the_editor_and_what_is_saved_is_the_next_version(
    stationmaster: Program, tmp_path: Path
) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, sys\nfile = pathlib.Path(sys.argv[1])\nfile.write_text(file.read_text() + ' More.')\n"
    )
    command = f"{sys.executable} {editor}"
    await stationmaster("prompts", "create", "p", "-t", "Hello.", "-l", "production")
    edited = await stationmaster("prompts", "edit", "p", "-m", "more", "-l", "production", EDITOR=command, VISUAL="")
    assert edited.code == 0, edited.err
    assert "-Hello." in edited.out
    assert "+Hello. More." in edited.out
    shown = parsed(await stationmaster("prompts", "show", "p", "--json"))
    assert (shown["template"], shown["version"], shown["message"]) == ("Hello. More.", 2, "more")
    assert shown["labels"] == {"production": 2}
    untouched = await stationmaster("prompts", "edit", "p", EDITOR="true", VISUAL="")
    assert "nothing was changed" in untouched.err
    failed = await stationmaster("prompts", "edit", "p", EDITOR="false", VISUAL="")
    assert (failed.code != 0, "nothing was changed" in failed.err) == (True, True)
    missing = await stationmaster("prompts", "edit", "p", EDITOR="/no/such/editor", VISUAL="")
    assert "set EDITOR" in missing.err


async def test_an_agent_is_made_with_a_prompt(stationmaster: Program) -> None:
    await stationmaster("prompts", "create", "role", "-t", "Be {{ tone }}.", "-l", "production")
    made = parsed(
        await stationmaster(
            *("agents", "create", "helper", "--model", "demo"),
            *("--prompt", "role@production", "--prompt-var", "tone=kind", "--json"),
        )
    )
    assert made["spec"]["prompt"] == "role@production"
    assert made["spec"]["promptVariables"] == {"tone": "kind"}
