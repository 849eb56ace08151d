"""The parts of prompts that are stored as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from stationmaster_server.prompts.model import Rule
from stationmaster_server.templating.model import Variable

_VARIABLES = TypeAdapter(tuple[Variable, ...])
_RULES = TypeAdapter(tuple[Rule, ...])


def variables_to_json(variables: tuple[Variable, ...]) -> list[dict[str, Any]]:
    """Variables as they are stored: what is default is left out."""
    document: list[dict[str, Any]] = _VARIABLES.dump_python(variables, mode="json", exclude_defaults=True)
    return document


def variables_from_json(document: list[dict[str, Any]]) -> tuple[Variable, ...]:
    """Variables as they were stored."""
    return _VARIABLES.validate_python(document)


def rules_to_json(rules: tuple[Rule, ...]) -> list[dict[str, Any]]:
    """Rules as they are stored: what is default is left out."""
    document: list[dict[str, Any]] = _RULES.dump_python(rules, mode="json", exclude_defaults=True)
    return document


def rules_from_json(document: list[dict[str, Any]]) -> tuple[Rule, ...]:
    """Rules as they were stored."""
    return _RULES.validate_python(document)
