"""Write docs/guides/task-kinds-reference.md from the kinds' payloads; `--check` fails when it differs."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from stationmaster_server.app.tasks import KINDS

TARGET = Path(__file__).parents[1] / "docs/guides/task-kinds-reference.md"
GUIDES = {"crawl": "crawling.md", "process": "documents.md"}
"""Of kinds that have one of their own."""
INTRODUCTION = """# Payloads of the kinds of tasks

Made by `make generate` from the kinds themselves; do not edit. What each kind does is told in
[Kinds of tasks](task-kinds.md).

A field that is not here is refused. A *secret* is used and never shown.
"""


def main() -> int:
    """Write the guide, or compare it."""
    text = INTRODUCTION + "".join(part for kind in KINDS for part in of_kind(kind.name, kind.payload))
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != text:
            print(f"docs/guides/{TARGET.name} is not what the kinds say: run make generate", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text)
    return 0


def of_kind(name: str, payload: type[BaseModel]) -> Iterator[str]:
    """The section of a kind: its payload, then what is nested in it."""
    schema = payload.model_json_schema()
    guide = f" ([guide]({GUIDES[name]}))" if name in GUIDES else ""
    yield f"\n## `{name}`\n\n{_first_paragraph(payload)}{guide}\n\n"
    yield from table(payload, schema, schema)
    for model in _nested(payload):
        yield f"\n### {model.__name__.removesuffix('Payload')}\n\n{_first_paragraph(model)}\n\n"
        yield from table(model, schema["$defs"][model.__name__], schema)


def table(model: type[BaseModel], schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[str]:
    """One row for each field."""
    meanings = docstrings(model)
    yield "| field | type | default | meaning |\n| --- | --- | --- | --- |\n"
    for name, field in schema["properties"].items():
        required = name in schema.get("required", ())
        default = "required" if required else _default(model, name)
        yield f"| `{name}` | {typed(field, root)} | {default} | {meanings.get(name, '')} |\n"


def typed(field: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """A type in words, with its bounds."""
    if not isinstance(field, dict):
        return "any value"  # JSON Schema: true
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        found = root["$defs"][name]
        return typed(found, root) if "enum" in found else name.removesuffix("Payload")
    if "anyOf" in field:
        return " or ".join(typed(one, root) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("writeOnly"):
        return "secret text"
    match field.get("type"):
        case "array":
            return f"list of {typed(field['items'], root)}{_bounds(field, 'Items', 'items')}"
        case "object":
            patterns: Mapping[str, Any] = field.get("patternProperties", {})
            inner: Any = field.get("additionalProperties") or next(iter(patterns.values()), {})
            return f"object of {typed(inner, root)}{_bounds(field, 'Properties', 'fields')}"
        case "string" if field.get("format") == "date-time":
            return "time (RFC 3339)"
        case "string":
            return f"text{_bounds(field, 'Length', 'characters')}"
        case "integer" | "number" as kind:
            return f"{'whole number' if kind == 'integer' else 'number'}{_bounds(field, 'imum', '')}"
        case "boolean":
            return "yes or no"
        case _:
            return "any JSON"


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What stands below each field, in one line."""
    node = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    if not isinstance(node, ast.ClassDef):
        raise TypeError(f"{model.__name__} is no class")
    found = {}
    for field, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(after.value.value).split()).replace("|", "\\|")
    return found


def _bounds(field: Mapping[str, Any], what: str, unit: str) -> str:
    low, high = field.get(f"min{what}"), field.get(f"max{what}")
    unit = f" {unit}" if unit else ""
    if low is None:
        return "" if high is None else f" (at most {high:,}{unit})"
    return f" (at least {low:,}{unit})" if high is None else f" ({low:,} to {high:,}{unit})"


def _default(model: type[BaseModel], name: str) -> str:
    value = model.model_fields[name].get_default(call_default_factory=True, validated_data={})
    if value is None or value in ("", (), {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"


def _nested(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models that the fields of a model are made of, by their names in its module."""
    module = inspect.getmodule(model)
    for name in model.model_json_schema().get("$defs", {}):
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, BaseModel):
            yield found


def _first_paragraph(model: type[BaseModel]) -> str:
    return " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    sys.exit(main())
