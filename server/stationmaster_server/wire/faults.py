"""What is wrong with values that a model of pydantic takes, in the words of whoever writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from stationmaster_server.errors import FieldViolation
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
    **dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing"), "a time: 2026-03-01T07:30:00Z"
    ),
    **dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing"), "a day: 2026-03-01"),
}
_KEY = "[key]"
"""How pydantic says that it is the key of a mapping that is wrong; the key itself stands before it."""
_LISTS = frozenset({"tuple_type", "list_type", "set_type", "frozen_set_type"})
_LENGTHS = frozenset({"too_short", "too_long"})


def violations(
    field: str,
    model: type[BaseModel],
    wrong: Iterable[Any],
    *,
    option: str = "",
    taken_for_good: Callable[[object], bool] = lambda _: False,
) -> list[FieldViolation]:
    """Pydantic's errors, each with its path below `field`; without those that only follow from others.

    `option`: by which the command line gives such values. `taken_for_good`: values that are known later.
    """
    found = list(wrong)
    return [
        FieldViolation(
            ".".join((field, *(str(part) for part in one["loc"] if part != _KEY))), _in_words(model, one, option)
        )
        for one in found
        if not (_follows(one, found) or taken_for_good(one.get("input")))
    ]


def _follows(error: Any, others: Sequence[Any]) -> bool:
    """A list is too short only because an item of it is wrong."""
    place = error["loc"]
    return error["type"] == "too_short" and any(
        len(one["loc"]) > len(place) and one["loc"][: len(place)] == place for one in others
    )


def _in_words(model: type[BaseModel], error: Any, option: str) -> str:
    kind, name, context = error["type"], error["loc"][-1] if error["loc"] else "", error.get("ctx", {})
    if kind in _LISTS:
        how = f"; on the command line: {option} '{name}[]=…', once for each item" if option else ""
        return f"is to be a list{how}"
    if kind in _WANTED:
        return f"is to be {_WANTED[kind]}"
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return _unknown(str(name), model if len(error["loc"]) == 1 else None)
    if kind in _LENGTHS:
        least = kind == "too_short"
        return f"needs at {'least' if least else 'most'} {context['min_length' if least else 'max_length']} of them"
    if kind == "string_pattern_mismatch" and (words := rules.of_pattern(context["pattern"])):
        return words
    return _PYTHON.sub("must ", str(error["msg"]).removeprefix("Value error, "))


def _unknown(name: str, model: type[BaseModel] | None) -> str:
    if model is None:
        return "there is no such field"
    known = sorted(model.model_fields)
    near = get_close_matches(name, known, 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"there is no such field{meant}; there are: {', '.join(known) or 'none'}"
