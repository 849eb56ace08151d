"""What a third party says is cleaned, masked and bounded; its schemas are checked within bounded work."""

from __future__ import annotations

from typing import Any

import pytest
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.mcp import cleaning, schemas
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.mcp.model import Http, Level, McpServer, Stdio


def mask_of(transport: Stdio | Http) -> Mask:
    """Of a server with that transport."""
    return Mask.of(McpServer("x", Level.USER, transport))


def test_secrets_of_the_environment_are_masked_and_short_values_are_not() -> None:
    mask = mask_of(Stdio("x", (), {"A": "secret-1", "B": "secret-12", "C": "no"}))
    assert mask.text("secret-12, secret-1, no") == "***, ***, no"
    assert mask.value({"secret-1": ["secret-12", 1, None, {"a": "no"}]}) == {"***": ["***", 1, None, {"a": "no"}]}


def test_the_token_of_an_authorization_header_is_masked_without_its_scheme_too() -> None:
    mask = mask_of(Http("http://x", {"authorization": "Bearer abcdef"}))
    assert mask.text("Bearer abcdef, abcdef, Bearer") == "***, ***, Bearer"


def test_descriptions_lose_what_a_person_cannot_see() -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "hidden")
    assert cleaning.label(f"a\x00b\x1b[0m\u202ec\u200bd\ne{hidden}", 100) == "ab[0mcd\ne"
    assert cleaning.label("x" * 100, 10) == "x" * 9 + "…"
    assert cleaning.label(None, 10) == ""


def test_text_that_is_no_unicode_can_be_stored() -> None:
    assert cleaning.content("a\ud800b").encode() == b"a?b"


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "object"}, ""),
        ({}, ""),
        ("object", "no object"),
        ({"type": "array"}, "not one of an object"),
        ({"type": "object", "required": "a"}, "no JSON schema"),
        ({"type": "object", "description": "x" * 70_000}, "larger than 64 KiB"),
    ],
)
def test_schemas_that_cannot_be_used_say_why(schema: Any, problem: str) -> None:
    assert problem in schemas.problem_of(schema, Bounds())
    assert bool(schemas.problem_of(schema, Bounds())) is bool(problem)


def test_a_schema_that_is_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"not": deep}
    assert "nested deeper than 40" in schemas.problem_of(deep, Bounds())


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"a": {"b": [1, "x"]}}, "arguments.a.b[1]"),
        ({"a": {"b": []}, "c": 1}, "arguments"),
        ({}, "arguments"),
    ],
)
def test_wrong_arguments_are_refused_naming_the_place(arguments: dict[str, Any], field: str) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"a": {"type": "object", "properties": {"b": {"items": {"type": "integer"}}}}},
    }
    with pytest.raises(InvalidArgument) as refused:
        schemas.check_arguments("tool", schema, arguments)
    assert refused.value.violations[0].field == field
    schemas.check_arguments("tool", schema, {"a": {"b": [1, 2]}})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"properties": {"a": {"pattern": "^(a+)+$"}}},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False, "unevaluatedProperties": False},
        {"$ref": "http://127.0.0.1:1/schema"},
        {
            "$ref": "#/$defs/0",
            "$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)} | {"40": {}},
        },
    ],
    ids=["itself", "pattern", "names", "elsewhere", "many"],
)
@pytest.mark.timeout(20)
def test_what_could_take_for_ever_to_check_is_left_to_the_server(schema: dict[str, Any]) -> None:
    schemas.check_arguments("tool", schema, {"a": "a" * 100 + "!", "a" * 100 + "!": 1})
