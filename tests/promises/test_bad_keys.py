"""Keys that do not open: missing, malformed, unknown, expired, revoked, of a disabled user, without the scope."""

from __future__ import annotations

import time

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from stationmaster.v1 import identity_pb2, session_pb2

from tests.contract.world import Caller, connect, key_of, settle
from tests.fixtures.server import RunningServer
from tests.promises.refusal import Refusal, refused
from tests.promises.valid import BY_NAME, invoke, make_session
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
WHO = identity_pb2.WhoAmIRequest()
LIMIT_SECONDS = 1.0
"""How long a key opens at most after it was taken away: a promise of every server."""


class Somebody(Caller):
    """Sends whatever it likes as its credentials."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The secret as it is, without `Bearer`."""
        return (("authorization", self.secret),) if self.secret else ()


async def shut_out(caller: Caller) -> bool:
    """Whether the caller is no longer let in."""
    try:
        await invoke(caller, "WhoAmI", WHO)
    except grpc.aio.AioRpcError:
        return True
    return False


async def both(caller: Caller, session: str) -> Refusal:
    """How a caller is refused: alike at a call with one answer and at a stream."""
    single = await refused(invoke(caller, "WhoAmI", WHO))
    stream = await refused(caller.call(BY_NAME["WatchSession"], session_pb2.WatchSessionRequest(name=session)))
    assert (single.code, single.reason, single.message) == (stream.code, stream.reason, stream.message)
    return single


@pytest.mark.parametrize(
    ("authorization", "reason", "advice"),
    [
        ("", "CREDENTIALS_MISSING", "authorization: Bearer"),
        ("Bearer", "CREDENTIALS_INVALID", "authorization: Bearer"),
        ("Bearer ", "CREDENTIALS_INVALID", "authorization: Bearer"),
        ("Basic dXNlcjpwYXNz", "CREDENTIALS_INVALID", "authorization: Bearer"),
        ("{key}", "CREDENTIALS_INVALID", "authorization: Bearer"),
        ("Bearer {key}x", "CREDENTIALS_INVALID", "not valid"),
        ("Bearer {cut}", "CREDENTIALS_INVALID", "not valid"),
        ("Bearer {other}", "CREDENTIALS_INVALID", "not valid"),
        ("Bearer {start}", "CREDENTIALS_INVALID", "not valid"),
        ("Bearer not.a.token", "CREDENTIALS_INVALID", "token"),
        ("Bearer eyJhbGciOiJub25lIn0.e30.", "CREDENTIALS_INVALID", "token"),
        ("Bearer " + "x" * 7000, "CREDENTIALS_INVALID", "token"),
    ],
)
async def test_what_is_no_key_is_refused_alike_everywhere(
    shared: RunningServer, owner: Caller, authorization: str, reason: str, advice: str
) -> None:
    key = owner.secret
    swapped = key[:-8] + key[-8:].swapcase()
    text = authorization.format(key=key, cut=key[:-1], other=swapped, start=key[:12])
    refusal = await both(Somebody(owner.channel, text), await make_session(owner))
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", reason)
    assert advice in refusal.message
    assert key not in refusal.message


async def test_a_key_is_refused_from_the_moment_it_expires(shared: RunningServer, owner: Caller) -> None:
    key = identity_pb2.ApiKey(expire_time=Timestamp(seconds=int(time.time()) + 2))
    made = await invoke(owner, "CreateApiKey", identity_pb2.CreateApiKeyRequest(api_key=key))
    async with connect(shared.target, made.secret) as caller:
        await invoke(caller, "WhoAmI", WHO)
        await until(lambda: shut_out(caller))
        assert time.time() >= key.expire_time.seconds
        refusal = await both(caller, await make_session(owner))
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "CREDENTIALS_EXPIRED")
    assert "expired" in refusal.message


async def test_a_key_is_refused_once_it_is_revoked(shared: RunningServer, owner: Caller) -> None:
    made = await invoke(owner, "CreateApiKey", identity_pb2.CreateApiKeyRequest(api_key=identity_pb2.ApiKey()))
    async with connect(shared.target, made.secret) as caller:
        await invoke(caller, "WhoAmI", WHO)
        await invoke(owner, "RevokeApiKey", identity_pb2.RevokeApiKeyRequest(name=made.api_key.name))
        await until(lambda: shut_out(caller), seconds=LIMIT_SECONDS)
        refusal = await both(caller, await make_session(owner))
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "CREDENTIALS_REVOKED")


async def test_the_keys_of_a_disabled_user_are_refused(shared: RunningServer, owner: Caller) -> None:
    user = identity_pb2.User(display_name="Soon gone", role=identity_pb2.ROLE_MEMBER)
    name = (await invoke(owner, "CreateUser", identity_pb2.CreateUserRequest(user=user))).name
    async with connect(shared.target, await key_of(owner, name)) as caller:
        await invoke(caller, "WhoAmI", WHO)
        await invoke(owner, "DisableUser", identity_pb2.DisableUserRequest(name=name))
        await until(lambda: shut_out(caller), seconds=LIMIT_SECONDS)
        refusal = await both(caller, await make_session(owner))
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "USER_DISABLED")


async def test_a_missing_scope_is_named(shared: RunningServer, owner: Caller) -> None:
    async with connect(shared.target, await settle(owner, "Narrow", scopes=["agents.read"])) as caller:
        refusal = await refused(invoke(caller, "ListSessions", session_pb2.ListSessionsRequest()))
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    assert refusal.metadata == {"scope": "sessions.read"}
    assert "sessions.read" in refusal.message
