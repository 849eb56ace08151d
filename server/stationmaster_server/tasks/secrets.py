"""Secrets of payloads, kept apart: what is shown, searched and remembered has a mask in their place.

Secret is what the schema of a kind's payload says is `writeOnly`: fields of pydantic's `SecretStr`. A secret is kept by
its JSON pointer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.templating.templates import is_template

MASK = "********"

Secrets = Mapping[str, Any]


def any_in(schema: Any) -> bool:
    """Whether anything that a schema describes is secret."""
    if isinstance(schema, dict):
        return bool(schema.get("writeOnly")) or any(any_in(inner) for inner in schema.values())
    return isinstance(schema, list) and any(any_in(inner) for inner in schema)


def part(
    schema: Mapping[str, Any], payload: Mapping[str, Any], field: str, before: Secrets | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A payload with masks, and its secrets. Where it has a mask already, the secret of `before` stays.

    Raises InvalidArgument for a mask without a secret, and for a template: what fills those in is shown.
    """
    kept = before or {}
    secrets, wrong = {}, []
    for pointer, value in dict(_places(schema, schema, payload, "")).items():
        path = field + pointer.replace("/", ".")
        if value == MASK and pointer in kept:
            secrets[pointer] = kept[pointer]
        elif value == MASK:
            wrong.append(FieldViolation(path, f"{MASK} stands for a secret that is not shown: write the secret itself"))
        elif isinstance(value, str) and is_template(value):
            wrong.append(FieldViolation(path, "a secret cannot be a template, whose variables are shown"))
        else:
            secrets[pointer] = value
    if wrong:
        text = "; ".join(f"{one.field}: {one.description}" for one in wrong[:10])
        raise InvalidArgument(Reason.INVALID_FIELD, text, *wrong[:50])
    return _replaced(payload, dict.fromkeys(secrets, MASK), ""), secrets


def join(payload: Mapping[str, Any], secrets: Secrets) -> dict[str, Any]:
    """The payload with its secrets, for its kind alone."""
    joined: dict[str, Any] = _replaced(payload, secrets, "")
    return joined


def mask_of(secrets: Secrets) -> Mask:
    """Takes the secrets out of what a kind says."""
    texts = [value for value in secrets.values() if isinstance(value, str)]
    # `Bearer abc`: the part after the scheme is the secret.
    return Mask([*texts, *(text.partition(" ")[2] for text in texts)])


def _places(schema: Any, root: Mapping[str, Any], value: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """Where a value has secrets. What is set is followed, so a schema that refers to itself ends with it."""
    if not isinstance(schema, Mapping) or value is None:
        return
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        yield from _places(root.get("$defs", {}).get(name), root, value, pointer)
    if schema.get("writeOnly"):
        yield pointer, value
        return
    for word in ("anyOf", "oneOf", "allOf"):
        for choice in schema.get(word, ()):
            yield from _places(choice, root, value, pointer)
    if isinstance(value, Mapping):
        for key, item in value.items():
            for inner in _of_key(schema, key):
                yield from _places(inner, root, item, _below(pointer, key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            for inner in (*schema.get("prefixItems", ())[place : place + 1], schema.get("items")):
                yield from _places(inner, root, item, _below(pointer, place))


def _of_key(schema: Mapping[str, Any], key: str) -> Iterator[Any]:
    yield schema.get("properties", {}).get(key)
    if key not in schema.get("properties", {}):
        yield schema.get("additionalProperties")
        yield from schema.get("patternProperties", {}).values()


def _below(pointer: str, key: object) -> str:
    return f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"


def _replaced(value: Any, by: Mapping[str, Any], pointer: str) -> Any:
    if pointer in by:
        return by[pointer]
    if isinstance(value, Mapping):
        return {key: _replaced(item, by, _below(pointer, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, by, _below(pointer, place)) for place, item in enumerate(value)]
    return value
