"""Python's times as protobuf's."""

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def to_duration(value: timedelta | None) -> Duration | None:
    """A duration, or none."""
    if value is None:
        return None
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def to_timestamp(value: datetime | None) -> Timestamp | None:
    """A point in time, or none. A time without a zone is refused: nobody can tell when it is."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(value)
    return timestamp
