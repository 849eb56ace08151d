"""JSON schemas of a third party: whether they can be used, and arguments against them, within bounded work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.mcp import cleaning
from stationmaster_server.mcp.bounds import Bounds

_MOST_REFERENCES = 5_000
_extended: Any = validators.extend
_references_left: ContextVar[int] = ContextVar("references_left", default=0)
_KEYWORDS = Draft202012Validator.VALIDATORS


class _TooMuchWork(Exception):
    """A schema refers to itself without end, or many times over."""


def problem_of(schema: Any, bounds: Bounds) -> str:
    """Why a schema of arguments cannot be used; empty when it can."""
    if not isinstance(schema, dict):
        return "its input schema is no object"
    if cleaning.depth(schema, bounds.schema_depth) > bounds.schema_depth:
        return f"its input schema is nested deeper than {bounds.schema_depth} levels"
    if len(json.dumps(schema)) > bounds.schema_bytes:
        return f"its input schema is larger than {bounds.schema_bytes // 1024} KiB"
    if schema.get("type", "object") != "object":
        return "its input schema is not one of an object"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"its input schema is no JSON schema: {error.message[:200]}"
    except (RecursionError, Unresolvable):
        return "its input schema is no JSON schema"
    return ""


def check_arguments(tool: str, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Raises InvalidArgument naming a place that is wrong.

    What could take a third party's pattern for ever to match (`pattern`, `patternProperties` and what depends on it) is
    left to the server, and so is a schema that takes more than a bounded number of references.
    """
    _references_left.set(_MOST_REFERENCES)
    try:
        # An empty registry: nothing is ever fetched to resolve a reference.
        error = next(_Validator(dict(schema), registry=Registry()).iter_errors(dict(arguments)), None)
    except (_TooMuchWork, RecursionError, Unresolvable):
        return
    if error is not None:
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        raise InvalidArgument.field(f"arguments{path}"[:200], f"{tool}: {cleaning.label(error.message, 300)}")


def _counted(keyword: str) -> Any:
    inner = _KEYWORDS[keyword]

    def follow(validator: Any, reference: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _references_left.set(_references_left.get() - 1)
        if _references_left.get() < 0:
            raise _TooMuchWork
        yield from inner(validator, reference, instance, schema) or ()

    return follow


def _unless_patterns(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if "patternProperties" not in schema:
        yield from _KEYWORDS["additionalProperties"](validator, rule, instance, schema) or ()


def _unchecked(*_: Any) -> Iterator[ValidationError]:
    return iter(())


_Validator = _extended(
    Draft202012Validator,
    {
        "$ref": _counted("$ref"),
        "$dynamicRef": _counted("$dynamicRef"),
        "additionalProperties": _unless_patterns,
        "pattern": _unchecked,
        "patternProperties": _unchecked,
        "unevaluatedItems": _unchecked,
        "unevaluatedProperties": _unchecked,
    },
)
