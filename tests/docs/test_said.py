"""What the texts name in passing is there: settings, variables, metrics, and commands, those not run too."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from stationmaster_client.cli.main import app
from stationmaster_server.__main__ import cli
from stationmaster_server.identity.model import KNOWN_SCOPES

from tests.contract.descriptors import methods
from tests.docs.commands import GUIDES, README, ROOT, commands_of
from tests.fixtures.server import running, server_settings

TEXTS = [README, *GUIDES, ROOT / "docs" / "ARCHITECTURE.md", *sorted((ROOT / "docs" / "adr").glob("*.md"))]
SETTINGS = set(re.findall(r"^\| `([a-z_0-9.]+)` \|", (ROOT / "docs/guides/settings.md").read_text(), re.MULTILINE))
GROUPS = {name.partition(".")[0] for name in SETTINGS if "." in name}
NO_SETTINGS = {"audit.forget", "audit.fork", "mcp.fail", "database.query", *KNOWN_SCOPES}
"""Events, a tool and scopes, which look like settings."""
_FILES = (".py", ".key", ".keys", ".json")
_PROGRAMS = {"stationmaster": app, "stationmaster-server": cli}


def inline(text: Path) -> set[str]:
    """What stands between single backticks outside of blocks."""
    without_blocks = re.sub(r"^ *```.*?^ *```", "", text.read_text(), flags=re.DOTALL | re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", without_blocks))


def test_settings_that_are_named_are_there() -> None:
    missing = []
    for text in TEXTS:
        for name in inline(text):
            looks_like_one = re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", name) and name.partition(".")[0] in GROUPS
            if not looks_like_one or name in NO_SETTINGS or name.endswith(_FILES):
                continue
            if name not in SETTINGS and not any(known.startswith(f"{name}.") for known in SETTINGS):
                missing.append(f"{text.name}: {name}")
    assert missing == []


def test_variables_that_are_named_are_settings() -> None:
    of_the_client = {"TARGET", "API_KEY", "CONTEXT", "CONFIG", "DATA_FOLDER", "DB_PASSWORD", "TLS_CA", "INSECURE"}
    for text in (README, *GUIDES):
        for name in set(re.findall(r"STATIONMASTER_([A-Z0-9]+(?:_+[A-Z0-9]+)*)", text.read_text())) - of_the_client:
            assert name.lower().replace("__", ".") in SETTINGS, f"{text.name}: STATIONMASTER_{name}"


async def test_metrics_that_are_named_are_there(database_url: str, tmp_path: Path) -> None:
    audit = {"copies": tmp_path.as_uri()}  # some are there for what is configured only
    async with running(server_settings(tmp_path / "data", database_url, audit=audit)) as server:
        families = {family.name for family in server.app.metrics.registry.collect()}
    for text in (README, *GUIDES):
        for name in {name for name in inline(text) if re.fullmatch(r"stationmaster_[a-z_]+", name)}:
            modules = ("client", "server", "word_count")
            if name.removeprefix("stationmaster_") not in modules:
                assert name.removesuffix("_total") in families, f"{text.name}: {name}"


@cache
def tree(program: str) -> Any:
    """The commands of a program."""
    return typer.main.get_command(_PROGRAMS[program])


def unknown_in(command: str) -> str:
    """The word of a command that is no command there, or the option that it does not have; empty: all are there."""
    program, *words = shlex.split(command)
    at = tree(program)
    while words and hasattr(at, "commands") and not words[0].startswith("-"):
        if words[0] not in at.commands:
            return words[0]
        at = at.commands[words.pop(0)]
    options = {name for parameter in at.params for name in (*parameter.opts, *parameter.secondary_opts)}
    given = (word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word))
    return next((option for option in given if option not in options | {"--help", "-h"}), "")


def shown() -> Iterator[tuple[str, str]]:
    """Every command that a text shows or names, with its text."""
    for text in (README, *GUIDES):
        named = (name.replace("\n", " ") for name in inline(text))
        for command in (*named, *(one.text for one in commands_of(text))):
            first, _, rest = command.partition(" ")
            if (
                first in _PROGRAMS
                and rest
                and not re.search(r"[|;&<>…]|\$\(", re.sub(r"'[^']*'|\"[^\"]*\"", "", command))
            ):
                yield text.name, command


def test_commands_and_options_that_are_named_are_there() -> None:
    commands = list(shown())
    assert len(commands) > 250
    wrong = [f"{name}: {command}: {unknown}" for name, command in commands if (unknown := unknown_in(command))]
    assert wrong == []


@pytest.mark.parametrize(
    "wrong", ["stationmaster sesions list", "stationmaster chat --mesage x", "stationmaster-server star"]
)
def test_what_is_not_there_would_be_seen(wrong: str) -> None:
    assert unknown_in(wrong)


def test_the_table_of_scopes_has_each_that_a_method_needs() -> None:
    table = (ROOT / "docs/guides/command-line.md").read_text().partition("## Scopes")[2].partition("\n\nOwners")[0]
    shown = set(
        re.findall(r"`([a-z_.]+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line))
    )
    needed = {method.scope for method in methods() if method.scope}
    assert needed - shown == set()
    assert shown - KNOWN_SCOPES - {"scope"} == set()
