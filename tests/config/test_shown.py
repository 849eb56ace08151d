"""Settings in effect, as people are shown them: a file that says the same, where each comes from, and no secret."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from stationmaster_server.__main__ import cli
from stationmaster_server.config import load
from stationmaster_server.config.load import load_layers
from stationmaster_server.config.shown import Shown, shown, to_toml
from typer.testing import CliRunner

FILE = """
profile = "low-resource"
[server]
port = 1234
[work]
slots = 3
[models.prices."my-model"]
input = 1.5
output = 2.5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(FILE)
    return path


def by_name(found: list[Shown]) -> dict[str, Shown]:
    return {one.name: one for one in found}


def test_each_setting_tells_where_it_comes_from(file: Path) -> None:
    environ = {"STATIONMASTER_WORK__SLOTS": "5", "DATABASE_URL": "postgresql://x@localhost/y"}
    found = by_name(shown(*load_layers(file, {"server": {"port": 99}}, environ)))
    assert (found["server.port"].value, found["server.port"].origin) == (99, "command line")
    assert (found["work.slots"].value, found["work.slots"].origin) == (5, "STATIONMASTER_WORK__SLOTS")
    assert found["database.url"].origin == "DATABASE_URL"
    assert (found["profile"].value, found["profile"].origin) == ("low-resource", str(file))
    assert (found["pools.processes"].value, found["pools.processes"].origin) == (1, "profile low-resource")
    assert (found["limits.burst"].origin, found["limits.burst"].changed) == ("default", False)


@pytest.mark.parametrize("profile", ["development", "low-resource", "production"])
def test_what_is_shown_is_a_file_that_says_the_same(file: Path, tmp_path: Path, profile: str) -> None:
    settings, layers = load_layers(file, {"profile": profile}, {"DATABASE_URL": "postgresql://localhost/y"})
    written = tmp_path / "shown.toml"
    written.write_text("\n".join(to_toml([one for one in shown(settings, layers) if one.value != "***"])))
    tomllib.loads(written.read_text())
    again = load(written, {"database": {"url": "postgresql://localhost/y"}}, {})
    assert again == settings


def test_nothing_confidential_is_shown(tmp_path: Path) -> None:
    environ = {
        "ANTHROPIC_API_KEY": "sk-very-hidden",
        "STATIONMASTER_CREDENTIALS__PASSPHRASE": "a long hidden passphrase",
        "STATIONMASTER_DATA_FOLDER": str(tmp_path),
        "DATABASE_URL": "postgresql://me:hidden-word@localhost/y",
    }
    for arguments in (["config", "show"], ["config", "show", "--json"], ["config", "show", "--changed"]):
        result = CliRunner().invoke(cli, arguments, env=environ)
        assert result.exit_code == 0, result.output
        assert "hidden" not in result.output
        assert "ANTHROPIC_API_KEY" in result.output


def test_a_file_that_cannot_be_is_told_by_its_place(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[server]\nprot = 1\n[work]\nslots = 0\n")
    result = CliRunner().invoke(cli, ["config", "check", "--config", str(wrong)])
    assert result.exit_code == 78
    assert "unknown setting 'server.prot'" in result.output
    assert "did you mean server.port" in result.output
    wrong.write_text("[work]\nslots = 0\n[server]\nport = 70000\n")
    result = CliRunner().invoke(cli, ["config", "check", "--config", str(wrong)])
    assert result.exit_code == 78
    assert "work.slots" in result.output
    assert "server.port" in result.output


def test_a_sound_file_is_said_to_be_fine(file: Path) -> None:
    result = CliRunner().invoke(cli, ["config", "check", "--config", str(file)])
    assert (result.exit_code, "profile low-resource" in result.output) == (0, True), result.output


def test_what_types_cannot_tell_is_told_too(tmp_path: Path) -> None:
    file = tmp_path / "witness.toml"
    file.write_text('[[audit.witnesses]]\nurl = "https://witness.example"\nkey = "witness.example/w1+…+…"\n')
    result = CliRunner().invoke(cli, ["config", "check", "--config", str(file)])
    assert (result.exit_code, "audit.witnesses" in result.output) == (78, True), result.output
