"""Agents from files: YAML, JSON or TOML with the fields of the proto message."""

from __future__ import annotations

import importlib
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stationmaster_client.cli.errors import CommandError

if TYPE_CHECKING:
    from stationmaster.v1 import agent_pb2


def read_agent(file: Path) -> tuple[str, agent_pb2.Agent]:
    """The id that the file gives (its `id` or `name`; else empty) and the agent."""
    from google.protobuf.json_format import ParseDict, ParseError
    from stationmaster.v1 import agent_pb2

    document = _parse(file)
    agent_id = str(document.pop("id", "") or str(document.pop("name", "")).removeprefix("agents/"))
    try:
        return agent_id, ParseDict(document, agent_pb2.Agent())
    except ParseError as error:
        raise CommandError(f"{file}: {error}") from error


def _parse(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
        document = _PARSERS.get(file.suffix.lower(), _yaml)(text)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"{file} cannot be understood: {error}") from error
    if not isinstance(document, dict):
        raise CommandError(f"{file} does not hold an agent: fields such as display_name and spec are needed")
    return document


def _yaml(text: str) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        raise CommandError("YAML needs one more package: pip install pyyaml (JSON and TOML do not)") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": _yaml,
    ".yml": _yaml,
}
