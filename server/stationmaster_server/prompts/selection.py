"""Conditions in CEL over the attributes of a context: read when they are written, tried when a prompt is chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from stationmaster_server.errors import FieldViolation
from stationmaster_server.prompts import syntax
from stationmaster_server.prompts.model import Rule, RuleOutcome
from stationmaster_server.templating.filters import words

if TYPE_CHECKING:
    import cel

# Everything else is refused: what is here takes time in proportion to the condition and the context.
_FUNCTIONS = words(
    "size contains startsWith endsWith int uint double string has"
    " timestamp duration getFullYear getMonth getDayOfMonth getDate getDayOfWeek getHours getMinutes getSeconds"
    " @not_strictly_false @in in"
)
_MACRO = re.compile(r"\b(?:all|exists|exists_one|existsOne)\s*\(")
_COPYING = re.compile(r"\b(?:map|filter|sortBy|transform\w*)\s*\(")
"""Copy what they have made so far for every item."""
_MOST_MACROS = 10
"""In all rules of a prompt: conditions are tried in the event loop."""
MOST_VALUES = 200
"""In a context, at every level."""
MOST_BYTES = 16_384
"""Of all keys and texts in a context."""
_MOST_SUMS = 16
"""In a condition: each copies what it adds up."""
_LONGEST_WITH_MACRO = 200
"""Characters: all of them are tried for every item of a list."""
_QUOTED = re.compile(r"\"[^\"\\]*\"|'[^'\\]*'")
_NAME = re.compile(r"(?<![.\w])[a-zA-Z_]\w*(?!\w|\s*\()")
_WORDS = words("true false null in")
_TOKEN = re.compile(r"[\[{}\]]|[a-zA-Z_]\w*")
_OPERATOR = re.compile(r"[^a-zA-Z@]+|_?\[?_?\??:?_?\]?")


def fault_of(condition: str, attributes: Sequence[str]) -> str:
    """Why a condition over these attributes cannot be; empty if it can."""
    if "\n" in condition or "\r" in condition:
        return "a condition stands on one line"
    if fault := _costly(condition):
        return fault
    try:
        program = _program(condition)
    except ValueError as error:
        return syntax.told(str(error))
    if other := sorted(
        name for name in program.functions() if name not in _FUNCTIONS and not _OPERATOR.fullmatch(name)
    ):
        return f"there is no function {', '.join(other)} here"
    bound = _bound(condition)
    if unknown := sorted(set(program.variables()) - set(attributes) - bound):
        known = ", ".join(sorted(attributes)[:20]) or "none"
        return f"there is no attribute {', '.join(unknown)}; those declared in context_attributes: {known}"
    return ""


def _costly(condition: str) -> str:
    """Why a condition would take long; empty if it would not."""
    macros, sums = len(_MACRO.findall(condition)), condition.count("+")
    if _COPYING.search(condition):
        return "a list is gone through by all, exists or exists_one: map and filter copy it for every item"
    if macros > 1:
        return "a condition may go through one list only: write two rules"
    if sums > (0 if macros else _MOST_SUMS):
        return "nothing is added up beside what goes through a list" if macros else f"more than {_MOST_SUMS} sums"
    if macros and len(condition) > _LONGEST_WITH_MACRO:
        return f"a condition that goes through a list has at most {_LONGEST_WITH_MACRO} characters: write two rules"
    if macros and re.search(r"\\|\"{3}|'{3}", condition):
        return "beside a list, texts stand in plain quotes, without backslashes"
    if macros and len(_attributes_in(_body(condition))) > 1:
        return "what goes through a list names one attribute at most beside the item, and once"
    return _literal_fault(condition)


def _body(condition: str) -> str:
    """What is evaluated for each item of a list: from the macro's parenthesis to the one that closes it."""
    text = _QUOTED.sub("", condition)
    opened = _MACRO.search(text)
    if opened is None:  # it was in a text
        return ""
    depth = 1
    for place in range(opened.end(), len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return text[opened.end() : place]
    return text[opened.end() :]


def _attributes_in(body: str) -> list[str]:
    """Each mention of something that is neither the item nor a constant."""
    names: list[str] = _NAME.findall(body)
    return [name for name in names[1:] if name != names[0] and name not in _WORDS]


def _literal_fault(condition: str) -> str:
    """Lists and maps of attributes would hold these many times over: what is written in brackets is constant."""
    if not re.search(r"[\[{]", condition):
        return ""
    if re.search(r"\\|\"{3}|'{3}", condition):
        return "beside a list, texts stand in plain quotes, without backslashes"
    depth = 0
    for word in _TOKEN.findall(_QUOTED.sub("", condition)):
        if word in "[{":
            depth += 1
        elif word in "]}":
            depth -= 1
        elif depth > 0 and word not in ("true", "false", "null"):
            return f"a list holds constants only, not {word}"
    return ""


def context_fault(context: Mapping[str, Any]) -> str:
    """Why a context is more than conditions are tried on; empty if it is not."""
    level: list[Any] = [context]
    count, size = -1, 0
    while level:
        count += len(level)
        size += sum(_bytes(value) for value in level)
        if count > MOST_VALUES:
            return f"it has more than {MOST_VALUES} values"
        if size > MOST_BYTES:
            return f"its texts have more than {MOST_BYTES // 1024} KiB"
        level = [item for value in level for item in _items(value)]
    return ""


def _items(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


def _bytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_bytes(key) for key in value)
    return len(value.encode(errors="surrogatepass")) if isinstance(value, str) else 0


def rule_faults(rules: Sequence[Rule], attributes: Sequence[str], path: str) -> list[FieldViolation]:
    """What is wrong with rules, by path."""
    faults = []
    if sum(len(_MACRO.findall(rule.condition)) for rule in rules) > _MOST_MACROS:
        faults.append(FieldViolation(path, f"at most {_MOST_MACROS} of them may go through a list"))
    for place, rule in enumerate(rules):
        if fault := fault_of(rule.condition, attributes):
            faults.append(FieldViolation(f"{path}[{place}].condition", fault))
        if not rule.label and not rule.version:
            faults.append(FieldViolation(f"{path}[{place}]", "say what it chooses: a label or a version"))
    return faults


def by_priority(rules: Sequence[Rule]) -> tuple[tuple[int, Rule], ...]:
    """The rules with their places, in the order in which they are tried."""
    return tuple(sorted(enumerate(rules), key=lambda each: (each[1].priority, each[0])))


def choose(
    ordered: Sequence[tuple[int, Rule]], context: Mapping[str, Any]
) -> tuple[tuple[int, Rule] | None, list[RuleOutcome]]:
    """The first rule that matches, with its place, and how those fared that were tried."""
    tried: list[RuleOutcome] = []
    values = dict(context)
    for place, rule in ordered:
        matched, error = _holds(rule.condition, values)
        tried.append(RuleOutcome(place, matched, error))
        if matched:
            return (place, rule), tried
    return None, tried


def _holds(condition: str, values: dict[str, Any]) -> tuple[bool, str]:
    try:
        found = _program(condition).execute(values)
    except (ValueError, TypeError, KeyError, RuntimeError, ArithmeticError, IndexError) as error:
        return False, syntax.told(str(error))
    return (found, "") if isinstance(found, bool) else (False, "it is neither true nor false")


@lru_cache(maxsize=4096)
def _program(condition: str) -> cel.Program:
    import cel  # here: it brings a command line along, 40 ms and 8 MiB that most servers never need

    return cel.compile(condition)


def _bound(condition: str) -> set[str]:
    """The name that a macro goes through a list with: its first argument."""
    return set(re.findall(_MACRO.pattern + r"\s*(\w+)\s*,", condition))
