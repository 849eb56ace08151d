"""What is wrong with a payload, in the words of whoever writes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from stationmaster_server.errors import FieldViolation
from stationmaster_server.templating.templates import is_template
from stationmaster_server.wire import rules

_PYTHON = re.compile(r"^(Input|String|Value|Tuple|List|Set|Dictionary|URL|Data|Number|Datetime) should ")
_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "an object",
    "model_type": "an object",
}
_LISTS = frozenset({"tuple_type", "list_type", "set_type", "frozen_set_type"})
_LENGTHS = frozenset({"too_short", "too_long"})


def violations(
    field: str, payload: type[BaseModel], wrong: Iterable[Any], *, templates: bool = False
) -> list[FieldViolation]:
    """Pydantic's errors, each with its path below `field`; without those that only follow from others.

    `templates`: what those will make is taken for good.
    """
    found = list(wrong)
    return [
        FieldViolation(".".join((field, *(str(part) for part in one["loc"]))), _in_words(payload, one))
        for one in found
        if not (_follows(one, found) or (templates and _is_template(one.get("input"))))
    ]


def _is_template(value: object) -> bool:
    return isinstance(value, str) and is_template(value)


def _follows(error: Any, others: Sequence[Any]) -> bool:
    """A list is too short only because an item of it is wrong."""
    place = error["loc"]
    return error["type"] == "too_short" and any(
        len(one["loc"]) > len(place) and one["loc"][: len(place)] == place for one in others
    )


def _in_words(payload: type[BaseModel], error: Any) -> str:
    kind, name, context = error["type"], error["loc"][-1] if error["loc"] else "", error.get("ctx", {})
    if kind in _LISTS:
        return f"is to be a list; on the command line: -p '{name}[]=…', once for each item"
    if kind in _WANTED:
        return f"is to be {_WANTED[kind]}"
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return _unknown(str(name), payload if len(error["loc"]) == 1 else None)
    if kind in _LENGTHS:
        least = kind == "too_short"
        return f"needs at {'least' if least else 'most'} {context['min_length' if least else 'max_length']} of them"
    if kind == "string_pattern_mismatch" and (words := rules.of_pattern(context["pattern"])):
        return words
    return _PYTHON.sub("must ", str(error["msg"]).removeprefix("Value error, "))


def _unknown(name: str, payload: type[BaseModel] | None) -> str:
    if payload is None:
        return "there is no such field"
    known = sorted(payload.model_fields)
    near = get_close_matches(name, known, 1)
    return f"there is no such field{f' (did you mean {near[0]}?)' if near else ''}; there are: {', '.join(known)}"
