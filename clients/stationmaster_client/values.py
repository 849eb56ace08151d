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


def to_number(enum: Any, value: int | str) -> Any:
    """The number of an enum's value from its name, with or without prefix: `success`, `OUTCOME_METRIC_SUCCESS`.

    Raises ValueError, which names those that there are.
    """
    if not isinstance(value, str):
        return value
    numbers = enum.DESCRIPTOR.values_by_name
    prefix = enum.DESCRIPTOR.values[0].name.removesuffix("UNSPECIFIED")
    wanted = value.upper().replace("-", "_")
    for name in (wanted, prefix + wanted):
        if name in numbers and numbers[name].number:
            return numbers[name].number
    known = ", ".join(one.name.removeprefix(prefix).lower() for one in enum.DESCRIPTOR.values[1:])
    raise ValueError(f"{value!r} is none of {known}")
