"""Who calls, and until when."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from stationmaster.v1 import identity_pb2 as pb
from stationmaster_server.db.caller import Caller, Role
from stationmaster_server.db.model import Tenant
from stationmaster_server.wire.caller import caller_of, calling, current_caller, current_deadline, time_left, until


def make_caller() -> Caller:
    """Somebody."""
    return Caller(Tenant(uuid4(), uuid4()), Role.OWNER, frozenset(), None, "api_key:x", "r", "p", "/m")


async def test_each_call_has_its_own_caller() -> None:
    async def call(caller: Caller) -> bool:
        with calling(caller):
            await asyncio.sleep(0)
            return current_caller() is caller

    assert all(await asyncio.gather(*(call(make_caller()) for _ in range(10))))
    with pytest.raises(LookupError):
        current_caller()


def test_a_mutations_caller_has_its_request_key() -> None:
    request_id = str(uuid4())
    with calling(make_caller()):
        key = caller_of(pb.CreateUserRequest(request_id=request_id)).request_key
        assert key is not None
        assert (str(key.request_id), key.method) == (request_id, "/m")
        assert caller_of(pb.CreateUserRequest()).request_key is None


def test_the_time_left_never_is_negative() -> None:
    assert (current_deadline(), time_left()) == (None, None)
    with until(time.monotonic() - 1):
        assert time_left() == timedelta(0)
    with until(time.monotonic() + 60):
        left = time_left()
        assert left is not None
        assert timedelta(seconds=50) < left <= timedelta(seconds=60)
