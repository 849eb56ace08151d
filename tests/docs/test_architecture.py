"""The page on the architecture names what there is: files, classes and functions in them, rooms, layers, decisions."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

from tests.docs.commands import ROOT

TEXT = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
SERVER = ROOT / "server" / "stationmaster_server"
ROOMS = sorted({servicer.relative_to(SERVER).parts[0] for servicer in SERVER.rglob("servicer.py")})
_FILE = re.compile(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)(?:: ([A-Za-z_]+(?:\.[a-z_]+)?))?`")


def place_of(name: str) -> Path | None:
    """A file as the page names it: from the server's package on, or from one of its rooms, in which the text is."""
    places = [path for path in SERVER.rglob(Path(name).name) if path.as_posix().endswith(f"/{name}")]
    return places[0] if places else None


@cache
def names_in(file: Path) -> set[str]:
    """The classes and functions of a module; methods by themselves, too."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
            fields = {ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)}
            fields |= {ast.unparse(name) for one in node.body if isinstance(one, ast.Assign) for name in one.targets}
            found |= methods | {f"{node.name}.{name}" for name in methods | fields}
    return found


@cache
def everything() -> set[str]:
    """Every class, function and method of the server."""
    return set().union(*(names_in(file) for file in SERVER.rglob("*.py")))


def test_files_and_what_is_said_to_be_in_them_are_there() -> None:
    missing = []
    for name, what in _FILE.findall(TEXT):
        place = place_of(name)
        if place is None or (what and what not in names_in(place)):
            missing.append(f"{name}: {what}")
    assert missing == []


def test_methods_that_are_named_are_there() -> None:
    named = set(re.findall(r"`([A-Z][A-Za-z]+\.[a-z_]+)(?:\(\))?`", TEXT))
    assert named - everything() == set()


def test_every_part_of_the_server_has_its_line() -> None:
    parts = {path.name for path in SERVER.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    section = TEXT.partition("## The server")[2].partition("\n## ")[0]
    block = section.partition("```\n")[2].partition("```")[0]
    told = set(re.findall(r"\b([a-z]+)/", block))
    assert parts - told == set()
    assert set(ROOMS) == set(re.findall(r"^\| `([a-z]+)/` \|", section, re.MULTILINE))


def test_the_layers_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["id"] == "layers")
    shown = " > ".join(layer.replace("(", "").replace(")", "") for layer in layers if layer != "(__main__)")
    assert shown in TEXT


def test_decisions_that_are_named_are_there() -> None:
    decided = {int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")}
    assert {int(number) for number in re.findall(r"\bADRs? (\d+)", TEXT)} <= decided
