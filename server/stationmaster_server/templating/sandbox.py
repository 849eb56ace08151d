"""The sandbox that templates run in: they see JSON values and some methods of them, and nothing else of Python."""

from __future__ import annotations

from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import StrictUndefined
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from stationmaster_server.templating.filters import (
    ALLOWED_FILTERS,
    GLOBALS,
    MOST_CHARACTERS,
    TooMuch,
    old_format,
    plain,
    words,
)

_MOST_REPEATED = 100_000
_MOST_BITS = 4096
# Methods and attributes by the type of what has them; whatever is not here is refused.
_ATTRIBUTES: tuple[tuple[type, frozenset[str]], ...] = (
    (
        str,
        words(
            "capitalize casefold count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric isspace"
            " istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition"
            " rsplit rstrip split splitlines startswith strip swapcase title upper"
        ),
    ),
    (dict, words("get items keys values")),
    (list, words("count index")),
    (tuple, words("count grouper index list")),  # `groupby` yields such
    (
        LoopContext,
        words("changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0"),
    ),
    (Cycler, words("current next reset")),
)
_MAKERS = frozenset(id(value) for value in GLOBALS.values())


class Sandbox(ImmutableSandboxedEnvironment):
    """Stricter than its parents: what is not named is refused. It has no loader: nothing can be included."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        # Not optimized: constants are computed when a template is filled in, under the limits of that.
        super().__init__(
            undefined=StrictUndefined, finalize=plain, optimized=False, keep_trailing_newline=True, cache_size=0
        )
        self.filters = dict(ALLOWED_FILTERS)
        self.globals = dict(GLOBALS)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only what is named."""
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        return any(isinstance(obj, kind) and attr in allowed for kind, allowed in _ATTRIBUTES)

    def is_safe_callable(self, obj: Any) -> bool:
        """Macros, the globals and what they make, methods that were let through."""
        return isinstance(obj, (BuiltinMethodType, MethodType, Macro, LoopContext, Joiner)) or id(obj) in _MAKERS

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Of an object its own fields first, as everybody expects of `order.items`."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> None:
        """No `format` methods: the filter has bounds."""
        return

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Items only, never an attribute."""
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Operators that can make much of little, with bounds."""
        if operator == "%" and isinstance(left, str):
            return old_format(left, right)
        if operator == "+":
            _check_length(left, right)
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**":
            _check_power(left, right)
        return super().call_binop(context, operator, left, right)


def _check_length(left: Any, right: Any) -> None:
    if all(isinstance(side, (str, list, tuple)) for side in (left, right)) and len(left) + len(right) > MOST_CHARACTERS:
        raise TooMuch(f"more than {MOST_CHARACTERS} characters or items")


def _check_product(left: Any, right: Any) -> None:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, (str, list, tuple)) and isinstance(other, int) and len(one) * other > _MOST_REPEATED:
            raise TooMuch(f"a repetition to more than {_MOST_REPEATED} characters or items")
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _MOST_BITS:
        raise TooMuch("a number with more than 1,200 digits")


def _check_power(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MOST_BITS:
        raise TooMuch("a number with more than 1,200 digits")
