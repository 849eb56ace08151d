"""Declarations of variables: protobuf to model and back."""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from stationmaster.v1 import task_pb2 as pb

from stationmaster_server.templating.model import Variable, VariableType
from stationmaster_server.wire.fields import mapping, struct

_TYPES = {kind: pb.VariableType.Value(f"VARIABLE_TYPE_{kind}") for kind in VariableType}
_TYPE_OF = {number: kind for kind, number in _TYPES.items()}


def variable_from_proto(message: pb.VariableDeclaration, field: str) -> Variable:
    """A declaration; `field` is where it stands. Raises InvalidArgument for values that are no JSON."""
    has_default = message.HasField("default_value")
    return Variable(
        name=message.name,
        type=_TYPE_OF.get(message.type, VariableType.STRING),
        description=message.description,
        required=message.required,
        has_default=has_default,
        default=_plain(message.default_value, field) if has_default else None,
        allowed=tuple(_plain(value, field) for value in message.allowed_values),
    )


def variable_to_proto(variable: Variable) -> pb.VariableDeclaration:
    """A declaration as its message."""
    message = pb.VariableDeclaration(
        name=variable.name,
        type=_TYPES[variable.type],
        description=variable.description,
        required=variable.required,
        allowed_values=[_value(value) for value in variable.allowed],
    )
    if variable.has_default:
        message.default_value.CopyFrom(_value(variable.default))
    return message


def _plain(value: Value, field: str) -> Any:
    return mapping(Struct(fields={"value": value}), field)["value"]


def _value(value: Any) -> Value:
    return struct({"value": value}).fields["value"]
