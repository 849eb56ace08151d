"""Messages from files: YAML, JSON or TOML with the fields of the proto message."""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.options import text_of
from stationmaster_client.cli.shorthand import spelt_out

if TYPE_CHECKING:
    from google.protobuf.message import Message

_OUTER = re.compile(r"^(Failed to parse \w+ field: )+")
"""What protobuf says before what is wrong: the path stands at the end, too."""
M = TypeVar("M", bound="Message")


def read_message(file: Path, message: M, collection: str) -> tuple[str, M]:
    """Fill a message from a file; the id that the file gives (its `id` or `name`; else empty) comes with it.

    Names of enums may go without their prefix, durations may be written as `90s`, `5m`, `2h` or `1d`.
    """
    from google.protobuf.json_format import ParseDict, ParseError

    document = read_document(file)
    if not isinstance(document, dict):
        raise CommandError(f"{file} does not hold one of {collection}: an object with its fields is needed")
    found = str(document.pop("id", "") or str(document.pop("name", "")).removeprefix(f"{collection}/"))
    try:
        return found, ParseDict(spelt_out(document, message.DESCRIPTOR), message)
    except (ParseError, ValueError) as error:
        raise CommandError(f"{file}: {_OUTER.sub('', str(error))}") from error


def read_document(file: Path) -> Any:
    """What is in a file; one without a known ending is taken for YAML, which JSON is, too."""
    try:
        return _PARSERS.get(file.suffix.lower(), _yaml)(text_of(file))
    except ValueError as error:
        raise CommandError(f"{file} cannot be understood: {error}") from error


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
