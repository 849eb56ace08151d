"""The filters and globals of templates: those of Jinja2 that read values, with bounds where one could ask for much."""

from __future__ import annotations

import json
import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any

from jinja2 import Undefined, pass_context
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.filters import FILTERS, do_batch, do_indent, do_round, do_slice
from jinja2.runtime import Context
from jinja2.sandbox import safe_range

MOST_CHARACTERS = 1024 * 1024
"""Of a text that a template makes."""
_MOST_COLUMNS = 1000
_WIDTH = re.compile(r"%(?:\([^)]*\))?[^a-zA-Z%]*?(\*|\d{4,})")


def words(text: str) -> frozenset[str]:
    """The words of a text: a set that reads well."""
    return frozenset(text.split())


_KEPT = words(
    "abs capitalize count d default dictsort e escape filesizeformat first float groupby int items join last length"
    " list lower map max min reject rejectattr replace reverse select selectattr sort string sum title trim truncate"
    " unique upper urlencode wordcount wordwrap"
)


class TooMuch(Exception):
    """A template asks for more than templates get; the message says of what."""


@pass_context  # without which constants would be written when a template is compiled, outside of all limits
def plain(context: Context, value: object) -> object:
    """A value as it stands in a text: null is nothing, true and false are lower case, lists and objects are JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float, Undefined)):
        return value
    if isinstance(value, (Iterator, KeysView, ValuesView, ItemsView, range)):
        value = list(value)
    if isinstance(value, (dict, list, tuple)):
        return to_json(value)
    raise TypeError(f"a {type(value).__name__} is no text")  # and would tell where it is in memory


def to_json(value: object, indent: int | None = None) -> str:
    """A value as JSON. TypeError when it is none."""
    if isinstance(value, Undefined):
        return str(value)  # raises, naming it
    return json.dumps(value, ensure_ascii=False, indent=min(indent, 8) if indent else None)


def old_format(text: str, arguments: Any) -> str:
    """`%` with the widths bounded."""
    if _WIDTH.search(text):
        raise TooMuch("a width or precision in a format is three digits at most")
    filled: str = str(text) % arguments
    return filled


def _format(value: object, *args: object, **kwargs: object) -> str:
    if args and kwargs:
        raise TypeError("format takes positional or named arguments, not both")
    return old_format(str(value), kwargs or args)


def _indent(text: str, width: int = 4, first: bool = False, blank: bool = False) -> str:
    return do_indent(text, _bounded(width), first, blank)


def _batch(value: Iterable[Any], linecount: int, fill_with: Any = None) -> Any:
    return do_batch(value, _bounded(linecount), fill_with)


def _slice(value: Any, slices: int, fill_with: Any = None) -> Any:
    return do_slice(value, _bounded(slices), fill_with)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    return do_round(value, _bounded(precision), method)


def _bounded(number: int) -> int:
    if not -_MOST_COLUMNS <= number <= _MOST_COLUMNS:
        raise TooMuch(f"{number} is more than {_MOST_COLUMNS}")
    return number


ALLOWED_FILTERS: dict[str, Any] = {name: FILTERS[name] for name in _KEPT} | {
    "batch": _batch,
    "format": _format,
    "indent": _indent,
    "round": _round,
    "slice": _slice,
    "tojson": to_json,
}
GLOBALS: dict[str, Any] = {name: DEFAULT_NAMESPACE[name] for name in ("cycler", "dict", "joiner", "namespace")} | {
    "range": safe_range
}
