"""Errors: whatever the server says about a failure is on the exception."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from stationmaster.v1 import session_pb2
from stationmaster_client import Client, StationmasterError, errors

from tests.client.stand_in import SESSION, serving


async def raised(code: grpc.StatusCode, *details: Message) -> StationmasterError:
    """The exception that a status with these details becomes."""
    status = status_pb2.Status(code=code.value[0], message="what happened")
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)

    async def get(request: session_pb2.GetSessionRequest, context: Any) -> session_pb2.Session:
        context.set_trailing_metadata(((errors.DETAILS_KEY, status.SerializeToString()),))
        await context.abort(code, "what happened")
        raise AssertionError

    async with serving(GetSession=get) as target, Client.connect(target) as client:
        with pytest.raises(StationmasterError) as caught:
            await client.sessions.get(SESSION)
    return caught.value


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)]
)
async def test_every_status_code_has_a_class_of_its_own(code: grpc.StatusCode) -> None:
    error = await raised(code)
    assert error.code is code
    assert str(error) == f"what happened ({code.name})"


async def test_the_reason_and_its_metadata_are_rebuilt() -> None:
    info = error_details_pb2.ErrorInfo(reason="SESSION_BUSY", domain="stationmaster", metadata={"state": "PROCESSING"})
    unmet = error_details_pb2.PreconditionFailure()
    unmet.violations.add(type="SESSION_STATE", subject=SESSION, description="wait for its turn")
    request = error_details_pb2.RequestInfo(request_id="r-1")
    error = await raised(grpc.StatusCode.FAILED_PRECONDITION, info, unmet, request)
    assert isinstance(error, errors.FailedPrecondition)
    assert (error.reason, error.metadata, error.request_id) == ("SESSION_BUSY", {"state": "PROCESSING"}, "r-1")
    assert error.violations == (errors.Violation(SESSION, "wait for its turn", "SESSION_STATE"),)
    assert str(error) == "what happened (SESSION_BUSY)"


async def test_fields_quotas_resources_and_waiting_times_are_rebuilt() -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="session.display_name", description="at most 200 characters")
    error = await raised(grpc.StatusCode.INVALID_ARGUMENT, bad)
    assert error.violations == (errors.Violation("session.display_name", "at most 200 characters"),)

    quota = error_details_pb2.QuotaFailure()
    quota.violations.add(subject="users/1", description="3 of 3 sessions")
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2))
    error = await raised(grpc.StatusCode.RESOURCE_EXHAUSTED, quota, retry)
    assert error.violations == (errors.Violation("users/1", "3 of 3 sessions"),)
    assert error.retry_after == timedelta(seconds=2)

    resource = error_details_pb2.ResourceInfo(resource_type="stationmaster.dev/Session", resource_name=SESSION)
    assert (await raised(grpc.StatusCode.NOT_FOUND, resource)).resource == SESSION


async def test_a_server_that_cannot_be_reached_is_unavailable_without_a_reason() -> None:
    async with Client.connect("127.0.0.1:1") as client:
        with pytest.raises(errors.Unavailable) as caught:
            await client.sessions.get(SESSION)
    assert caught.value.reason == ""
