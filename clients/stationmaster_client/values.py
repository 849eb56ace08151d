"""Python's values as protobuf's."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.struct_pb2 import Struct


def to_struct(values: Mapping[str, Any] | None) -> Struct | None:
    """A JSON object, or none."""
    if values is None:
        return None
    struct = Struct()
    struct.update(dict(values))
    return struct
