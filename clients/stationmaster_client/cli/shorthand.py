"""Spells out what people write shorter than protobuf's JSON: enums without prefix, `5m`, times of YAML and TOML."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?")
_DIGITS = re.compile(r"-?[0-9]+")
_WHOLE = frozenset({1, 2, 3, 4})
"""FieldDescriptor.CPPTYPE_INT32, INT64, UINT32 and UINT64."""
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}


def seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `2h`, `1d`, `1h 30m` in seconds. Raises ValueError."""
    pieces = list(_SPAN.finditer(text))
    if not pieces or _SPAN.sub("", text).strip():
        raise ValueError(f"{text!r} is no length of time: write 90s, 5m, 2h or 1d")
    return sum(float(piece[1]) * _SECONDS[piece[2] or "s"] for piece in pieces)


def spelt_out(value: Any, descriptor: Any, path: str = "") -> Any:
    """A document as protobuf's JSON parser takes it. Raises ValueError naming the path of what is wrong."""
    if isinstance(value, dict):
        fields = _fields(descriptor)
        if fields:
            _check_known([str(key) for key in value], fields, path)
        return {
            str(key): _field(item, fields.get(str(key)), f"{path}.{key}" if path else str(key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [spelt_out(item, descriptor, f"{path}[{place}]") for place, item in enumerate(value)]
    return _plain(value)


def _fields(descriptor: Any) -> dict[str, FieldDescriptor]:
    if descriptor is None or descriptor.file.package == "google.protobuf" or descriptor.GetOptions().map_entry:
        return {}  # the keys are data
    return {name: field for field in descriptor.fields for name in (field.name, field.json_name)}


def _check_known(given: list[str], fields: dict[str, FieldDescriptor], path: str) -> None:
    for name in given:
        if name not in fields:
            known = list(dict.fromkeys(field.name for field in fields.values()))
            near = get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            place = f"{path}.{name}" if path else name
            raise ValueError(f"{place}: there is no such field{hint}; there are: {', '.join(known)}")


def _field(value: Any, field: FieldDescriptor | None, path: str) -> Any:
    if field is None:
        return spelt_out(value, None, path)
    if field.enum_type is not None:
        return _enums(value, field.enum_type, path)
    if field.cpp_type in _WHOLE and isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise ValueError(f"{path}: {value!r} is no whole number")
    message = field.message_type
    if message is not None and message.full_name == "google.protobuf.Duration" and isinstance(value, (str, int, float)):
        return _duration(value, path)
    if message is not None and message.full_name == "google.protobuf.Timestamp" and isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).isoformat()
    return spelt_out(value, message, path)


def _enums(value: Any, enum: EnumDescriptor, path: str) -> Any:
    if isinstance(value, list):
        return [_enums(item, enum, f"{path}[{place}]") for place, item in enumerate(value)]
    if not isinstance(value, str) or value in enum.values_by_name:
        return value
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    wanted = prefix + value.upper().replace("-", "_").replace(" ", "_")
    if wanted not in enum.values_by_name:
        known = ", ".join(one.name.removeprefix(prefix) for one in enum.values[1:])
        raise ValueError(f"{path}: {value!r} is none of {known}")
    return wanted


def _duration(value: str | float, path: str) -> str:
    try:
        return f"{seconds(str(value)):.9f}".rstrip("0").rstrip(".") + "s"
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (datetime, date, time)) else value
