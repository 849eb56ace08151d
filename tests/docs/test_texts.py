"""What the texts show besides commands is right: links lead somewhere, settings are taken, no block is passed over."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from stationmaster_server.config import load

from tests.docs.commands import GUIDES, README, ROOT, shows_commands

TEXTS = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
KNOWN = {"", "text", "python", "json", "toml", "yaml", "sql"}
_NOT_SETTINGS = {"python-client.md", "command-line.md", "task-kinds.md"}
"""Their TOML is a configuration of the client, an agent, a package's `pyproject.toml`."""


class Block(NamedTuple):
    """A block of a text."""

    file: Path
    line: int
    language: str
    content: str

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}"


def blocks() -> Iterator[Block]:
    """Every block of the README and the guides."""
    for file in (README, *GUIDES):
        text = file.read_text()
        for found in _BLOCK.finditer(text):
            yield Block(file, text[: found.start()].count("\n") + 1, found[2], found[3])


def of(language: str) -> list[Block]:
    """The blocks of a language."""
    return [block for block in blocks() if block.language == language]


def test_a_block_that_is_not_commands_says_what_it_is() -> None:
    """Else its lines would be taken for commands that were run."""
    assert {block.language for block in blocks()} <= KNOWN
    assert [str(block) for block in of("") if not shows_commands(block.content)] == []
    assert [str(block) for block in of("text") if shows_commands(block.content)] == []


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_settings_that_are_shown_are_taken(block: Block, tmp_path: Path) -> None:
    shown = tomllib.loads(block.content)
    if block.file.name in _NOT_SETTINGS:
        assert shown
        return
    settings = load(None, {"data_folder": str(tmp_path), **shown}, environ={})
    for group in shown:
        assert getattr(settings, group) is not None


@pytest.mark.parametrize("block", [*of("json"), *of("yaml")], ids=str)
def test_data_that_is_shown_can_be_read(block: Block) -> None:
    whole = re.sub(r"…", "", block.content)
    shown: Any = json.loads(whole) if block.language == "json" else list(yaml.safe_load_all(whole))
    assert shown


def anchors(file: Path) -> set[str]:
    """The headings of a text, as links name them."""
    titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_links_lead_somewhere() -> None:
    missing = []
    for text in TEXTS:
        for link in _LINK.findall(_BLOCK.sub("", text.read_text())):
            path, _, anchor = link.partition("#")
            target = (text.parent / path).resolve() if path else text
            if "://" in link:
                continue
            if not target.exists() or (anchor and anchor not in anchors(target)):
                missing.append(f"{text.relative_to(ROOT)}: {link}")
    assert missing == []


def test_the_index_names_every_guide() -> None:
    index = ROOT / "docs" / "guides" / "README.md"
    named = {link for link in _LINK.findall(index.read_text()) if "/" not in link}
    assert {guide.name for guide in GUIDES} - {index.name} == named
