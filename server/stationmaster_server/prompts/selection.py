"""Conditions in CEL over the attributes of a context: read when they are written, tried when a prompt is chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import cel

from stationmaster_server.errors import FieldViolation
from stationmaster_server.prompts.model import Rule, RuleOutcome
from stationmaster_server.templating.filters import words

# Everything else is refused: what is here takes time in proportion to the condition and the context.
_FUNCTIONS = words(
    "size contains startsWith endsWith lowerAscii upperAscii int uint double string bool has"
    " timestamp duration getFullYear getMonth getDayOfMonth getDate getDayOfWeek getHours getMinutes getSeconds"
    " @not_strictly_false @in in"
)
_MACRO = re.compile(r"\b(?:all|exists|exists_one|existsOne|map|filter|sortBy|transform\w*)\s*\(")
_MOST_MACROS = 10
"""In all rules of a prompt: conditions are tried in the event loop."""
MOST_VALUES = 200
"""In a context, at every level."""
_OPERATOR = re.compile(r"[^a-zA-Z@]+|_?\[?_?\??:?_?\]?")


def fault_of(condition: str, attributes: Sequence[str]) -> str:
    """Why a condition over these attributes cannot be; empty if it can."""
    if "\n" in condition or "\r" in condition:
        return "a condition stands on one line"
    if len(_MACRO.findall(condition)) > 1:
        return "a condition may go through one list only: write two rules"
    try:
        program = _program(condition)
    except ValueError as error:
        return _brief(str(error))
    if other := sorted(
        name for name in program.functions() if name not in _FUNCTIONS and not _OPERATOR.fullmatch(name)
    ):
        return f"there is no function {', '.join(other)} here"
    bound = _bound(condition)
    if unknown := sorted(set(program.variables()) - set(attributes) - bound):
        known = ", ".join(sorted(attributes)[:20]) or "none"
        return f"there is no attribute {', '.join(unknown)}; those declared in context_attributes: {known}"
    return ""


def context_fault(context: Mapping[str, Any]) -> str:
    """Why a context is more than conditions are tried on; empty if it is not."""
    level: list[Any] = list(context.values())
    count = 0
    while level:
        count += len(level)
        if count > MOST_VALUES:
            return f"it has more than {MOST_VALUES} values"
        level = [item for value in level for item in _items(value)]
    return ""


def _items(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


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
        return False, _brief(str(error))
    return (found, "") if isinstance(found, bool) else (False, "it is neither true nor false")


@lru_cache(maxsize=4096)
def _program(condition: str) -> cel.Program:
    return cel.compile(condition)


def _bound(condition: str) -> set[str]:
    """The name that a macro goes through a list with: its first argument."""
    return set(re.findall(_MACRO.pattern + r"\s*(\w+)\s*,", condition))


def _brief(text: str) -> str:
    """The first line of what the library says, without its preamble."""
    line = text.split("ERROR: <input>:", 1)[-1].splitlines()[0] if text else ""
    return line[:300] or "it cannot be read"
