"""JSON schemas of a third party: whether they can be used, and arguments against them, within bounded work."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from stationmaster_server.errors import InvalidArgument
from stationmaster_server.mcp import cleaning
from stationmaster_server.mcp.bounds import Bounds

_MOST_REFERENCES = 5_000
_extended: Any = validators.extend
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


class Arguments:
    """Checks the arguments of one tool.

    What could take a third party's pattern for ever to match (`pattern`, `patternProperties` and what depends on it) is
    left to the server, and so is a schema that takes more than a bounded number of references.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._left = 0
        kind = _extended(
            Draft202012Validator,
            {
                "$ref": self._counted("$ref"),
                "$dynamicRef": self._counted("$dynamicRef"),
                "additionalProperties": _unless_patterns,
                "pattern": None,
                "patternProperties": None,
                "unevaluatedItems": None,
                "unevaluatedProperties": None,
            },
        )
        # An empty registry: nothing is ever fetched to resolve a reference.
        self._validator = kind(dict(schema), registry=Registry())

    def check(self, tool: str, arguments: Mapping[str, Any]) -> None:
        """Raises InvalidArgument naming the first place that is wrong."""
        self._left = _MOST_REFERENCES
        try:
            error = next(self._validator.iter_errors(dict(arguments)), None)
        except (_TooMuchWork, RecursionError, Unresolvable):
            return
        if error is not None:
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
            raise InvalidArgument.field(f"arguments{path}"[:200], f"{tool}: {cleaning.label(error.message, 300)}")

    def _counted(self, keyword: str) -> Any:
        inner = _KEYWORDS[keyword]

        def follow(validator: Any, reference: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            self._left -= 1
            if self._left < 0:
                raise _TooMuchWork
            yield from inner(validator, reference, instance, schema) or ()

        return follow


def _unless_patterns(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if "patternProperties" not in schema:
        yield from _KEYWORDS["additionalProperties"](validator, rule, instance, schema) or ()
