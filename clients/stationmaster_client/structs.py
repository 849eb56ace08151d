"""Structs as what they were made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct


def values(struct: Struct) -> dict[str, Any]:
    """The values by name, in that order, whole numbers as such: a Struct keeps no order and knows floats only."""
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = whole(MessageToDict(struct))
    return found


def whole(value: Any) -> Any:
    """The same with whole numbers as such, and names in order."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
