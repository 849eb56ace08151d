"""Values of options: `KEY=TEXT`, lengths of time, points in time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.files import read_document
from stationmaster_client.cli.options import piped, text_of
from stationmaster_client.cli.shorthand import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stationmaster.v1.task_pb2 import VariableDeclaration

HOW = "KEY=TEXT, KEY=@FILE, KEY:=JSON, 'KEY[]=ITEM' of a list, a JSON object, or @FILE of one; may be repeated"


def values(texts: list[str], option: str) -> dict[str, Any]:
    """A JSON object from what the option was given, in order: later ones win."""
    found: dict[str, Any] = {}
    for text in texts:
        if text.startswith("{"):
            found |= _object(_json(text, option), option)
        elif text.startswith("@"):
            found |= _object(read_document(Path(text[1:])), option)
        else:
            _assign(found, text, option)
    return found


def _assign(found: dict[str, Any], text: str, option: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise CommandError(f"{option} {text!r}: write {HOW.removesuffix('; may be repeated')}")
    if key.endswith(":"):
        found[key[:-1]] = _json(value, f"{option} {key[:-1]}")
    elif key.endswith("[]"):
        before = found.setdefault(key[:-2], [])
        found[key[:-2]] = [*(before if isinstance(before, list) else [before]), value]
    else:
        found[key] = read_text(value)


def read_as(found: dict[str, Any], declarations: Iterable[VariableDeclaration]) -> dict[str, Any]:
    """The values; texts of what is declared as a number, boolean, list or object are read as JSON, if they are."""
    from stationmaster.v1 import task_pb2

    as_text = (task_pb2.VARIABLE_TYPE_UNSPECIFIED, task_pb2.VARIABLE_TYPE_STRING, task_pb2.VARIABLE_TYPE_ANY)
    types = {one.name: one.type for one in declarations}
    return {name: value if types.get(name, 0) in as_text else read_json(value) for name, value in found.items()}


def read_json(value: Any) -> Any:
    """JSON, or else as it is: the server says what is wrong with it."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def read_text(value: str) -> str:
    """The text, or with `@` the file of that name; `@-` is standard input."""
    if not value.startswith("@"):
        return value
    return piped() if value == "@-" else text_of(Path(value[1:]))


def _json(text: str, option: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f"{option}: {text!r} is no JSON: {error}") from error


def _object(value: Any, option: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CommandError(f"{option} needs a JSON object")
    return value


def span(text: str, option: str) -> timedelta | None:
    """A length of time with its unit; none if nothing was given."""
    if not text:
        return None
    if text.strip().isdecimal() and int(text):
        raise CommandError(f"{option}: {text} of what? Write {text}s, {text}m, {text}h or {text}d")
    try:
        return timedelta(seconds=seconds(text))
    except (ValueError, OverflowError) as error:
        raise CommandError(f"{option}: {error}") from error


def moment(text: str, option: str) -> datetime | None:
    """A point in time: ISO 8601, in this machine's zone unless it names one; `+2h` from now, `-1d` before."""
    if not text:
        return None
    try:
        if text[0] in "+-":
            ahead = timedelta(seconds=seconds(text[1:]))
            return datetime.now(UTC) + (ahead if text[0] == "+" else -ahead)
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise CommandError(f"{option}: {text!r} is no time: write 2026-03-01T07:30, or +2h for in two hours") from error
