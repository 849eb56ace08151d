"""Fields of messages to and from plain Python: times, structs, update masks, request ids."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Set
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NullValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from stationmaster_server.db.model import RequestKey
from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The first and the last instant are infinite to the database; a day beside them, because zones and sums go past.
_EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
# Readers of messages follow 100 levels, a Struct takes three of them for each of its own, and stands in others.
_DEEPEST = 24


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment as a Timestamp; None stays None, which a message's constructor takes as absent."""
    if moment is None:
        return None
    seconds, microseconds = divmod((moment - _EPOCH) // _MICROSECOND, 1_000_000)
    return Timestamp(seconds=seconds, nanos=microseconds * 1000)


def moment(message: Message, field: str) -> datetime | None:
    """The Timestamp in `field` as a UTC datetime, to the microsecond; None when it is absent."""
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    try:
        found = _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError:
        found = None
    if found is None or not _EARLIEST <= found <= _LATEST:
        raise InvalidArgument.field(field, f"must lie between {_EARLIEST.date()} and {_LATEST.date()}")
    return found


def duration(span: timedelta | None) -> Duration | None:
    """A span as a Duration; None stays None."""
    if span is None:
        return None
    microseconds = span // _MICROSECOND
    seconds = abs(microseconds) // 1_000_000
    nanos = abs(microseconds) % 1_000_000 * 1000
    return Duration(seconds=seconds, nanos=nanos) if microseconds >= 0 else Duration(seconds=-seconds, nanos=-nanos)


def span(message: Message, field: str) -> timedelta | None:
    """The Duration in `field`, to the microsecond; None when it is absent."""
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    try:
        return timedelta(seconds=value.seconds, microseconds=int(value.nanos / 1000))
    except OverflowError:
        raise InvalidArgument.field(field, "is too long") from None


def struct(values: Mapping[str, Any]) -> Struct:
    """A JSON object as a Struct, whatever is in it.

    What a Struct does not have (a datetime, a UUID, a number beyond a double) becomes its text, and so does what is
    nested too deeply for the readers of messages.
    """
    return _to_struct(values, _DEEPEST)


def struct_bytes(values: Mapping[str, Any]) -> int:
    """How many bytes a JSON object has as a Struct."""
    return struct(values).ByteSize()


def mapping(message: Struct, field: str) -> dict[str, Any]:
    """The Struct in `field` as a JSON object; whole numbers come back as int. InvalidArgument for what is no number."""
    return {key: _from_value(value, field) for key, value in message.fields.items()}


def masked(request: Message, allowed: Set[str], *, absent_means_all: bool = False) -> set[str]:
    """The fields that an update changes (AIP-134), by the request's `update_mask`.

    `*` means all that are allowed; so does an absent mask when `absent_means_all`, otherwise it means those that the
    resource has set. Raises InvalidArgument(INVALID_UPDATE_MASK) that names each path which cannot be updated.
    """
    mask: FieldMask = field_of(request, "update_mask")
    paths = set(mask.paths)
    if paths == {"*"} or (not paths and absent_means_all):
        return set(allowed)
    if not paths:
        resource = _resource(request)
        return {path for path in allowed if is_set(resource, path)}
    unknown = sorted(paths - allowed)
    if unknown:
        known = ", ".join(sorted(allowed))
        violations = [FieldViolation("update_mask", f"{path!r} cannot be updated; known: {known}") for path in unknown]
        raise InvalidArgument(Reason.INVALID_UPDATE_MASK, f"update_mask: {violations[0].description}", *violations)
    return paths


def request_key(request: Message, method: str) -> RequestKey | None:
    """The request's `request_id` with what it was sent for (contract rule 7); None when it has none."""
    text: str = field_of(request, "request_id")
    if not text:
        return None
    try:
        request_id = UUID(text)
    except ValueError:
        raise InvalidArgument.field("request_id", "must be a UUID") from None
    return RequestKey(request_id, method, hashlib.sha256(canonical(request, "request_id")).digest())


def canonical(request: Message, *without: str) -> bytes:
    """The bytes of a message without some fields: equal for equal messages."""
    copy = type(request)()
    copy.CopyFrom(request)
    for field in without:
        copy.ClearField(field)
    return copy.SerializeToString(deterministic=True)


def field_of(message: Message, name: str) -> Any:
    """The field of a message whose type is not known here, only that it has the field."""
    return getattr(message, name)


def _resource(request: Message) -> Message:
    """The resource in an update request: its first message that is not the mask."""
    for field in request.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.full_name != FieldMask.DESCRIPTOR.full_name:
            resource: Message = getattr(request, field.name)
            return resource
    raise TypeError(f"{request.DESCRIPTOR.full_name} has no resource")


def is_set(message: Message, path: str) -> bool:
    """Whether a message has a field (`limits.max_turns`): one without presence, whether it is not zero."""
    head, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[head]
    if rest:
        return message.HasField(head) and is_set(getattr(message, head), rest)
    return message.HasField(head) if field.has_presence else bool(getattr(message, head))


def _to_struct(values: Mapping[str, Any], levels: int) -> Struct:
    message = Struct()
    for key, value in values.items():
        message.fields[key].CopyFrom(_to_value(value, levels - 1))
    return message


def _to_value(value: Any, levels: int) -> Value:
    if value is None:
        return Value(null_value=NullValue.NULL_VALUE)
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, int | float):
        return Value(number_value=value) if abs(value) <= sys.float_info.max else Value(string_value=str(value))
    if isinstance(value, Mapping | list | tuple | set | frozenset) and levels <= 0:
        return Value(string_value=_as_text(value))
    if isinstance(value, Mapping):
        return Value(struct_value=_to_struct({str(key): item for key, item in value.items()}, levels))
    if isinstance(value, list | tuple | set | frozenset):
        answer = Value()
        # Extending by nothing would leave the kind unset.
        answer.list_value.SetInParent()
        answer.list_value.values.extend(_to_value(item, levels - 1) for item in value)
        return answer
    return Value(string_value=str(value))


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        return "[nested too deeply]"


def _from_value(value: Value, field: str) -> Any:
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "number_value":
            number = value.number_value
            if not isfinite(number):
                raise InvalidArgument.field(field, f"holds {number}, which is no number in JSON")
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "struct_value":
            return mapping(value.struct_value, field)
        case "list_value":
            return [_from_value(item, field) for item in value.list_value.values]
    return None
