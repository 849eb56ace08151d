"""Fields to and from plain Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf, nan
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st
from stationmaster.v1 import identity_pb2 as pb
from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.wire.fields import (
    duration,
    mapping,
    masked,
    moment,
    request_key,
    struct,
    timestamp,
)

ALLOWED = frozenset({"display_name", "email", "role"})


EARLIEST, LATEST = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001 - hypothesis gives them their zone


@given(st.datetimes(EARLIEST, LATEST, timezones=st.just(UTC)))
def test_moments_come_back_as_they_were(value: datetime) -> None:
    assert moment(pb.ApiKey(expire_time=timestamp(value)), "expire_time") == value


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T12:00:00Z"])
def test_a_moment_that_is_infinite_to_the_database_is_refused(text: str) -> None:
    message = pb.ApiKey()
    message.expire_time.FromJsonString(text)
    with pytest.raises(InvalidArgument, match="must lie between 0001-01-02 and 9999-12-30"):
        moment(message, "expire_time")


def test_absent_moments_are_none_both_ways() -> None:
    assert moment(pb.ApiKey(expire_time=timestamp(None)), "expire_time") is None


@given(st.timedeltas(min_value=timedelta(days=-36500), max_value=timedelta(days=36500)))
def test_durations_are_exact_and_have_one_sign(value: timedelta) -> None:
    message = duration(value)
    assert message is not None
    assert message.ToTimedelta() == value
    assert message.seconds * message.nanos >= 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values))
def test_json_objects_come_back_as_they_were(value: dict[str, Any]) -> None:
    assert mapping(struct(value), "value") == value


def test_what_no_struct_holds_becomes_its_text() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = [{"a": deep}]
    message = struct({"deep": deep, "huge": 10**400, "small": -(10**400), "nan": nan, "infinite": -inf})
    assert Struct.FromString(message.SerializeToString()) == message
    read = mapping(message, "value")
    assert read["huge"] == f"1{'0' * 400}"
    assert read["small"] == f"-1{'0' * 400}"
    assert (read["nan"], read["infinite"]) == ("nan", "-inf")
    inner, levels = read["deep"], 0
    while isinstance(inner, list):
        inner, levels = inner[0]["a"] if isinstance(inner[0], dict) else inner[0], levels + 1
    assert levels > 10
    assert inner.startswith(('{"a": [', '[{"a": '))


def test_numbers_that_are_none_in_json_are_refused() -> None:
    message = Struct()
    message.fields["a"].list_value.values.add().number_value = nan
    with pytest.raises(InvalidArgument, match="arguments"):
        mapping(message, "arguments")


def update(*paths: str, **fields: Any) -> pb.UpdateUserRequest:
    """An update of these fields under this mask."""
    return pb.UpdateUserRequest(user=pb.User(name="users/x", **fields), update_mask=FieldMask(paths=paths))


def test_a_mask_names_what_changes() -> None:
    assert masked(update("email", display_name="x"), ALLOWED) == {"email"}


def test_a_star_means_everything() -> None:
    assert masked(update("*"), ALLOWED) == ALLOWED


def test_no_mask_means_what_is_set() -> None:
    assert masked(update(display_name="x", role=pb.ROLE_OWNER), ALLOWED) == {"display_name", "role"}


def test_no_mask_can_mean_everything() -> None:
    request = pb.SetQuotaRequest(quota=pb.Quota(max_users=0))
    assert masked(request, {"max_users", "max_calls_per_hour"}) == {"max_users"}
    assert masked(request, {"max_users", "max_calls_per_hour"}, absent_means_all=True) == {
        "max_users",
        "max_calls_per_hour",
    }


def test_a_mask_with_unknown_fields_names_each() -> None:
    with pytest.raises(InvalidArgument) as refusal:
        masked(update("email", "etag", "shoe_size"), ALLOWED)
    assert refusal.value.reason is Reason.INVALID_UPDATE_MASK
    assert [violation.description.split("'")[1] for violation in refusal.value.violations] == ["etag", "shoe_size"]


def test_a_request_id_stands_for_its_request() -> None:
    request_id = "0199a0b0-0000-7000-8000-000000000001"
    request = pb.CreateUserRequest(user=pb.User(display_name="x"), request_id=request_id)
    key = request_key(request, "/m")
    assert key is not None
    assert (key.request_id, key.method) == (UUID(request_id), "/m")
    other = pb.CreateUserRequest(user=pb.User(display_name="y"), request_id=request_id)
    assert request_key(other, "/m") != key
    again = pb.CreateUserRequest(user=pb.User(display_name="x"), request_id=request_id.upper())
    assert request_key(again, "/m") == key


def test_no_request_id_is_none_and_a_bad_one_is_refused() -> None:
    assert request_key(pb.CreateUserRequest(), "/m") is None
    with pytest.raises(InvalidArgument):
        request_key(pb.CreateUserRequest(request_id="x"), "/m")
