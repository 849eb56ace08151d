"""What a third party says is cleaned, masked and bounded; its schemas are checked within bounded work."""

from __future__ import annotations

from typing import Any

import pytest
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.mcp import cleaning, schemas
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.mcp.model import Http, Level, McpServer, Stdio


def problem_of(schema: Any) -> str:
    """Why it cannot be used."""
    return schemas.problem_of(schema, Bounds(), schemas.Work(Bounds().schemas_work))


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
    assert problem in problem_of(schema)
    assert bool(problem_of(schema)) is bool(problem)


def test_a_schema_that_is_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"not": deep}
    assert "nested deeper than 40" in problem_of(deep)


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


SLOW: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "pattern": "^(a+)+$"}
OBJECTS = [{"i": i} for i in range(80_000)]
METASCHEMA = "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("schema", "a"),
    [
        ({"$ref": "#"}, "x"),
        ({"properties": {"a": {"pattern": "^(a+)+$"}}}, "a" * 100 + "!"),
        ({"properties": {"a": SLOW}}, "a" * 100 + "!"),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": SLOW}}, "a" * 100 + "!"),
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False, "unevaluatedProperties": False}, "x"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "x"),
        (
            {
                "$ref": "#/$defs/0",
                "$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)} | {"40": {}},
            },
            "x",
        ),
        ({"properties": {"a": {"uniqueItems": True}}}, OBJECTS),
        ({"properties": {"a": {"$ref": METASCHEMA}}}, {"required": OBJECTS}),
        ({"properties": {"a": {"items": {"anyOf": [{"type": "string"}] * 1_000 + [{}]}}}}, OBJECTS),
        ({"properties": {"a": {"anyOf": [{"type": "string"}] * 1_000 + [{}]}}}, OBJECTS),
        ({"properties": {"a": {"items": {"items": {"enum": [[0] * 10_000]}}}}}, [[[0] * 10_000] * 10] * 100),
    ],
    ids=[
        *("itself", "pattern", "pattern of a dialect", "pattern behind a reference", "names", "elsewhere", "many"),
        *("pairs", "pairs of the metaschema", "alternatives", "quoted", "compared"),
    ],
)
@pytest.mark.timeout(60)
def test_what_could_take_for_ever_to_check_is_left_to_the_server(schema: dict[str, Any], a: Any) -> None:
    schemas.check_arguments("tool", schema, {"a": a, "a" * 100 + "!": 1})


@pytest.mark.parametrize("keyword", ["type", "required", "enum"])
@pytest.mark.timeout(60)
def test_a_schema_that_takes_for_ever_to_check_is_refused(keyword: str) -> None:
    schema = {"$schema": METASCHEMA, "properties": {"a": {keyword: OBJECTS}}}
    bounds = Bounds(schema_bytes=10_000_000)
    problem = schemas.problem_of(schema, bounds, schemas.Work(bounds.schemas_work))
    assert bool(problem) is (keyword != "enum")


@pytest.mark.timeout(60)
def test_the_work_is_bounded_for_all_schemas_together() -> None:
    schema: dict[str, Any] = {"anyOf": [{}] * 1_000}
    work = schemas.Work(5_000_000)
    problems = [schemas.problem_of(schema, Bounds(), work) for _ in range(10)]
    assert problems[0] == ""
    assert "takes too long to check" in problems[-1]


def test_many_rows_are_checked() -> None:
    row = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}
    schema = {"properties": {"rows": {"type": "array", "items": row}}}
    rows: list[dict[str, Any]] = [{"a": "x", "b": 1}] * 1_000
    schemas.check_arguments("tool", schema, {"rows": rows})
    with pytest.raises(InvalidArgument, match=r"arguments\.rows\[1000\]"):
        schemas.check_arguments("tool", schema, {"rows": [*rows, {"b": 1}]})
