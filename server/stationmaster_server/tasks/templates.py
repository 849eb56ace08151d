"""Payloads as templates: every text of a JSON object, at any depth, is one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import to_json

from stationmaster_server.errors import FieldViolation, InvalidArgument
from stationmaster_server.tasks.kinds.registry import MAX_PAYLOAD_BYTES
from stationmaster_server.templating.model import Fault, Outline
from stationmaster_server.templating.templates import Templates, is_template
from stationmaster_server.templating.variables import names_fault
from stationmaster_server.wire.fields import struct_bytes

MOST_TEMPLATES = 1000
"""In a payload."""
_PLAIN_KEY = re.compile(r"[\w-]+")
_JUST_A_NAME = re.compile(r"\s*\{\{-?\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*-?\}\}\s*")


async def check(templates: Templates, payload: Mapping[str, Any], names: frozenset[str], path: str) -> None:
    """Whether a payload can be filled in from variables of these names. Raises InvalidArgument naming all texts.

    What uses no variables is filled in, to see whether it can be.
    """
    texts = _texts(payload, path)
    found = await templates.examine(texts)
    faults = {at: f"{one}" if isinstance(one, Fault) else names_fault(one.names, names) for at, one in found.items()}
    if wrong := [FieldViolation(at, fault[:500]) for at, fault in faults.items() if fault]:
        raise InvalidArgument.fields(wrong)
    constant = {at: texts[at] for at, one in found.items() if isinstance(one, Outline) and not one.names}
    if constant:
        await templates.fill(constant, {}, most=MAX_PAYLOAD_BYTES)


async def fill(
    templates: Templates,
    payload: Mapping[str, Any],
    values: Mapping[str, Any],
    path: str,
    *,
    most: int = MAX_PAYLOAD_BYTES,
) -> dict[str, Any]:
    """The payload filled in. Raises InvalidArgument naming the texts that cannot be, or when it has too many bytes.

    A text that is nothing but the name of a list or an object, `{{ urls }}`, becomes that; all others stay texts.
    """
    texts = _texts(payload, path)
    names = {text_path: name for text_path, text in texts.items() if (name := _container(text, values))}
    sizes = {name: len(to_json(values[name])) for name in set(names.values())}
    if sum(sizes[name] for name in names.values()) > most:  # before anything is made of them
        raise InvalidArgument.field(path, f"filled in, it has more than the {most} bytes that are allowed")
    others = {text_path: text for text_path, text in texts.items() if text_path not in names}
    filled = await templates.fill(others, values, most=most)
    new: dict[str, Any] = {**filled, **{text_path: values[name] for text_path, name in names.items()}}
    made = {key: _replaced(item, _below(path, key), new) for key, item in payload.items()}
    if (size := struct_bytes(made)) > most:
        raise InvalidArgument.field(path, f"filled in, it has {size} bytes; {most} are allowed")
    return made


def _container(text: str, values: Mapping[str, Any]) -> str | None:
    match = _JUST_A_NAME.fullmatch(text)
    return match[1] if match and isinstance(values.get(match[1]), (list, dict)) else None


def _below(path: str, key: str) -> str:
    """The path of a field; no two fields have the same one."""
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{json.dumps(key, ensure_ascii=False)}]"


def _texts(payload: Mapping[str, Any], path: str) -> dict[str, str]:
    texts = {text_path: text for text_path, text in _walk(payload, path) if is_template(text)}
    if len(texts) > MOST_TEMPLATES:
        raise InvalidArgument.field(path, f"it has {len(texts)} templates; at most {MOST_TEMPLATES} can be filled in")
    return texts


def _walk(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, _below(path, key))
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from _walk(item, f"{path}[{place}]")


def _replaced(value: Any, path: str, filled: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return filled.get(path, value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, _below(path, key), filled) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replaced(item, f"{path}[{place}]", filled) for place, item in enumerate(value)]
    return value
