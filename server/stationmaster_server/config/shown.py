"""Settings as they are in effect, written as the file that would say the same, each with where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from stationmaster_server.config.load import Layer
from stationmaster_server.config.model import Settings

MASK = "***"
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting. `value`: as in TOML, a secret masked; None: it is not set."""

    name: str
    value: Any
    origin: str

    @property
    def changed(self) -> bool:
        """Whether anything but the default says so."""
        return self.origin != "default"


def shown(settings: Settings, layers: list[Layer]) -> list[Shown]:
    """Every setting, in the order of the guide."""
    return [Shown(name, plain(value), _origin(name, layers)) for name, value in _leaves(settings)]


def to_toml(found: list[Shown]) -> Iterator[str]:
    """The lines of a settings file; where each comes from stands behind it."""
    group = ""
    for one in found:
        own_group, _, name = one.name.rpartition(".")
        if own_group != group:
            group = own_group
            yield f"\n[{group}]"
        origin = f"  # {one.origin}" if one.changed else ""
        yield f"# {name} is not set{origin}" if one.value is None else f"{name} = {_toml(one.value)}{origin}"


def plain(value: object) -> Any:
    """A value as people write it in a file."""
    match value:
        case SecretStr():
            return MASK
        case timedelta():
            return _duration(value)
        case Enum():
            return value.value
        case Path() | Decimal():
            return str(value)
        case BaseModel():
            return {name: plain(getattr(value, name)) for name in type(value).model_fields}
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case tuple() | list() | frozenset() | set():
            return [plain(each) for each in value]
        case _:
            return value


def _duration(span: timedelta) -> str:
    milliseconds = span // timedelta(milliseconds=1)
    unit, size = next((unit, size) for unit, size in _UNITS if milliseconds % size == 0)
    return f"{milliseconds // size}{unit}"


def _leaves(group: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Those of a group before those of its groups, as TOML wants it."""
    values = {name: getattr(group, name) for name in type(group).model_fields}
    groups = {name: value for name, value in values.items() if isinstance(value, BaseModel)}
    for name, value in values.items():
        if name not in groups:
            yield f"{prefix}{name}", value
    for name, inner in groups.items():
        yield from _leaves(inner, f"{prefix}{name}.")


def _origin(name: str, layers: list[Layer]) -> str:
    """The topmost layer that says something."""
    for layer in reversed(layers):
        value: Any = layer.values
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return layer.origin_of(name)
    return "default"


def _toml(value: object) -> str:
    """A value in TOML, whose strings, lists, numbers and yes and no are those of JSON; tables are not."""
    match value:
        case dict():
            return (
                "{"
                + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items() if each is not None)
                + "}"
            )
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)
