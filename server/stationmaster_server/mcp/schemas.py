"""JSON schemas of a third party: whether they can be used, and arguments against them, within bounded work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import attrs
from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.mcp import cleaning
from stationmaster_server.mcp.bounds import Bounds

# A unit of work takes about a tenth of a microsecond.
_ARGUMENTS_WORK = 2_000_000
_KEYWORD_WORK = 50
_ERROR_WORK = 500
_PAIR_WORK = 6
_CHARACTERS_PER_UNIT = 64
_extended: Any = validators.extend
_KEYWORDS = Draft202012Validator.VALIDATORS


class TooMuchWork(Exception):
    """A schema refers to itself without end, or multiplies with what is checked against it."""


class Work:
    """How much may still be done. What a value weighs is counted with it: rules go through it, errors quote it."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._weights: dict[int, int] = {}

    def take(self, amount: int) -> None:
        """Do so much. Raises TooMuchWork."""
        self._left -= amount
        if self._left < 0:
            raise TooMuchWork

    def weigh(self, value: Any) -> int:
        """Note what a value weighs, and everything in it; it must live as long as this. Raises TooMuchWork."""
        if isinstance(value, Mapping):
            weight = 1 + sum(self.weight(key) + self.weigh(inner) for key, inner in value.items())
        elif isinstance(value, list):
            weight = 1 + sum(map(self.weigh, value))
        else:
            return self.weight(value)
        self.take(1 + len(value))
        self._weights[id(value)] = weight
        return weight

    def weight(self, value: Any) -> int:
        """What was weighed, or a scalar."""
        return 1 + len(value) // _CHARACTERS_PER_UNIT if isinstance(value, str) else self._weights.get(id(value), 1)


_work: ContextVar[Work] = ContextVar("work")


def problem_of(schema: Any, bounds: Bounds, work: Work) -> str:
    """Why a schema of arguments cannot be used; empty when it can. `work` is for all schemas of a server together."""
    if not isinstance(schema, dict):
        return "its input schema is no object"
    if cleaning.depth(schema, bounds.schema_depth) > bounds.schema_depth:
        return f"its input schema is nested deeper than {bounds.schema_depth} levels"
    if len(json.dumps(schema)) > bounds.schema_bytes:
        return f"its input schema is larger than {bounds.schema_bytes // 1024} KiB"
    if schema.get("type", "object") != "object":
        return "its input schema is not one of an object"
    rules = _Validator(Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
    try:
        error = _first_error(rules, schema, work)
    except TooMuchWork:
        return "its input schema, with those of the other tools, takes too long to check"
    except (RecursionError, Unresolvable):
        return "its input schema is no JSON schema"
    return f"its input schema is no JSON schema: {error.message[:200]}" if error else ""


def check_arguments(tool: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raises InvalidArgument naming a place that is wrong.

    What could take a third party's pattern for ever to match (`pattern`, `patternProperties` and what depends on it) is
    left to the server, and so are a schema and arguments that take more than bounded work together.
    """
    work, rules, given = Work(_ARGUMENTS_WORK), dict(schema), dict(arguments)
    try:
        work.weigh(rules)
        # An empty registry: nothing is ever fetched to resolve a reference.
        error = _first_error(_Validator(rules, registry=Registry()), given, work)
    except (TooMuchWork, RecursionError, Unresolvable):
        return
    if error is not None:
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        raise InvalidArgument.field(f"arguments{path}"[:200], f"{tool}: {cleaning.label(error.message, 300)}")


def _first_error(rules: Any, value: Any, work: Work) -> ValidationError | None:
    work.weigh(value)
    token = _work.set(work)
    try:
        return next(rules.iter_errors(value), None)
    finally:
        _work.reset(token)


def _counted(keyword: str) -> Any:
    inner = _KEYWORDS[keyword]

    def follow(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        work = _work.get()
        work.take(_KEYWORD_WORK + work.weight(instance) + work.weight(rule))
        for error in inner(validator, rule, instance, schema) or ():
            work.take(_ERROR_WORK)
            yield error

    return follow


def _unique(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # What cannot be sorted is compared in pairs.
    if isinstance(instance, list) and not all(isinstance(item, str) for item in instance):
        _work.get().take(_PAIR_WORK * len(instance) ** 2)
    yield from _counted("uniqueItems")(validator, rule, instance, schema)


def _unless_patterns(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if "patternProperties" not in schema:
        yield from _counted("additionalProperties")(validator, rule, instance, schema)


def _unchecked(*_: Any) -> Iterator[ValidationError]:
    return iter(())


def _evolve(self: Any, **changes: Any) -> Any:
    """The library's would take another class for a schema with a `$schema`, which knows of no bounds."""
    for field in attrs.fields(type(self)):
        if field.init:
            changes.setdefault(field.alias, getattr(self, field.name))
    return type(self)(**changes)


_Validator = _extended(
    Draft202012Validator,
    {keyword: _counted(keyword) for keyword in _KEYWORDS}
    | {
        "additionalProperties": _unless_patterns,
        "pattern": _unchecked,
        "patternProperties": _unchecked,
        "unevaluatedItems": _unchecked,
        "unevaluatedProperties": _unchecked,
        "uniqueItems": _unique,
    },
)
_Validator.evolve = _evolve
