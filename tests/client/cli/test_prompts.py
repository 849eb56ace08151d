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


async def test_values_are_read_as_the_prompt_declares_them(stationmaster: Program, tmp_path: Path) -> None:
    file, inner = tmp_path / "ordered.json", tmp_path / "inner.json"
    inner.write_text('{"template": "{{ k + 1 }}", "variables": [{"name": "k", "type": "integer"}]}')
    file.write_text(
        json.dumps(
            {
                "template": "{{ n + 1 }} {{ yes and 'ja' }} {{ word }} {{ found }} {% include 'inner' %}",
                "variables": [
                    {"name": "n", "type": "integer"},
                    {"name": "yes", "type": "boolean"},
                    {"name": "word", "type": "string"},
                ],
                "context_attributes": [{"name": "seats", "type": "integer"}],
                "rules": [{"condition": "seats > 100", "label": "big"}],
            }
        )
    )
    var = [part for text in ("n=3", "yes=true", "word=7", "found=1e5", "k=8") for part in ("-p", text)]
    results = await stationmaster.many(
        [
            ("prompts", "create", "inner", "--file", str(inner)),
            ("prompts", "create", "ordered", "--file", str(file), "-l", "big", "-l", "production"),
            ("prompts", "render", "ordered", *var),
            ("prompts", "render", "ordered", *var, "-p", "n:=4"),
            ("prompts", "select", "ordered", "-c", "seats=200"),
            ("prompts", "render", "ordered", *var, "-c", "seats=200", "--json"),
            ("prompts", "customize", "ordered", "-t", "x", "-p", "n=3", "--json"),
            ("prompts", "render", "ordered", *var, "-p", "n=three"),
        ]
    )
    assert [each.code for each in results] == [0] * 7 + [2], results
    assert results[2].out == "4 ja 7 1e5 9\n"
    assert results[3].out.startswith("5 ja")
    assert "rule 0" in results[4].out
    assert parsed(results[5])["selection"]["label"] == "big"
    assert parsed(results[6])["variables"] == {"n": 3}
    assert "variables.n" in results[7].err


async def test_a_version_is_named_after_an_at_sign(stationmaster: Program) -> None:
    results = await stationmaster.many(
        [
            ("prompts", "create", "greeting", "-t", "one", "-l", "production"),
            ("prompts", "update", "greeting", "-t", "two", "-l", "staging"),
            ("prompts", "update", "greeting", "-t", "three"),
            ("prompts", "render", "greeting"),
            ("prompts", "render", "greeting@staging"),
            ("prompts", "render", "greeting@3"),
            ("prompts", "show", "prompts/greeting@2", "--json"),
            ("prompts", "outcome", "greeting@staging", "success", "1"),
            ("prompts", "render", "greeting@2", "--label", "staging"),
            ("prompts", "select", "greeting@2"),
        ]
    )
    assert [each.code for each in results] == [0] * 8 + [2, 2], results
    assert [each.out for each in results[3:6]] == ["one\n", "two\n", "three\n"]
    assert parsed(results[6])["template"] == "two"
    assert "version" in results[7].out
    assert "versions/2" in results[7].out
    assert "write greeting" in results[9].err.replace("\n", " ")


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
