"""Python's values as protobuf's."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value


def to_struct(values: Mapping[str, Any] | None) -> Struct | None:
    """A JSON object, or none."""
    if values is None:
        return None
    struct = Struct()
    struct.update(dict(values))
    return struct


def to_value(value: Any) -> Value:
    """Any JSON value."""
    struct = Struct()
    struct.update({"value": value})
    return struct.fields["value"]
