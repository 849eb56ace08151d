"""The echo service behind the whole chain, on a real port; who may call is a table instead of a database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from stationmaster_server.config import ServerSettings
from stationmaster_server.errors import Reason, Unauthenticated
from stationmaster_server.identity.authentication import Certificate, Origin
from stationmaster_server.identity.model import AuditEntry, Caller, Identity, Role, Tenant
from stationmaster_server.resilience.rate_limit import TokenBucket, TokenBuckets
from stationmaster_server.rpc.chain import Chain
from stationmaster_server.rpc.errors import DETAILS_KEY
from stationmaster_server.rpc.health import HealthBoard
from stationmaster_server.rpc.interceptors.admission import Admission
from stationmaster_server.rpc.interceptors.authentication import Authentication
from stationmaster_server.rpc.interceptors.base import Interceptor
from stationmaster_server.rpc.interceptors.deadline import Deadlines
from stationmaster_server.rpc.interceptors.observation import Observation
from stationmaster_server.rpc.interceptors.rate_limit import CallerRate, ServerRate
from stationmaster_server.rpc.interceptors.refusals import Refusals
from stationmaster_server.rpc.interceptors.request_id import Announcement, RequestIds
from stationmaster_server.rpc.interceptors.scope import Scopes
from stationmaster_server.rpc.interceptors.validation import Validation
from stationmaster_server.rpc.server import RpcServer
from stationmaster_server.telemetry.calls import CallMetrics

from tests.rpc.echo import Echo, EchoStub, register

ALL, READER = "all", "reader"
SCOPES = {ALL: frozenset({"echo.*"}), READER: frozenset({"echo.read"})}


class KnownKeys:
    """Knows two keys, and the certificates of the names it is given."""

    def __init__(self) -> None:
        self.tenants = {key: Tenant(uuid4(), uuid4()) for key in SCOPES}
        self.certificates: list[Certificate] = []

    async def authenticate(
        self, authorization: str | None, certificate: Certificate | None = None, *, origin: Origin | None = None
    ) -> Identity:
        """Look the key up."""
        if certificate is not None:
            self.certificates.append(certificate)
            return Identity(self.tenants[ALL], Role.MEMBER, SCOPES[ALL], None, f"mtls:{certificate.names[0]}")
        key = (authorization or "").removeprefix("Bearer ")
        if key not in SCOPES:
            raise Unauthenticated(Reason.CREDENTIALS_MISSING, "send a key")
        return Identity(self.tenants[key], Role.MEMBER, SCOPES[key], uuid4(), f"api_key:{key}")


@dataclass
class Trail:
    """Keeps what was audited."""

    entries: list[tuple[Caller, AuditEntry]] = field(default_factory=list)

    async def write(self, tx: Any, caller: Caller, entry: AuditEntry, *, organization_id: UUID | None = None) -> UUID:
        """Not used by the transport."""
        raise NotImplementedError

    async def write_refusal(self, caller: Caller, entry: AuditEntry) -> None:
        """Keep it."""
        self.entries.append((caller, entry))


@dataclass
class Served:
    """A server with the echo service, and what a test looks at."""

    echo: Echo
    server: RpcServer
    board: HealthBoard
    metrics: CallMetrics
    admission: Admission
    keys: KnownKeys
    trail: Trail

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server.port}"

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[EchoStub]:
        """A stub on a channel of its own."""
        options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
        async with grpc.aio.insecure_channel(self.target, options=options) as channel:
            yield EchoStub(channel)


@asynccontextmanager
async def serving(
    settings: ServerSettings | None = None,
    *,
    server_rate: TokenBucket | None = None,
    caller_rate: TokenBuckets[UUID] | None = None,
    more: Sequence[Interceptor] = (),
) -> AsyncIterator[Served]:
    """Serve the echo service through every interceptor that needs no database."""
    settings = settings or ServerSettings(port=0)
    keys, trail, metrics = KnownKeys(), Trail(), CallMetrics()
    admission = Admission(max_calls=settings.max_calls, max_streams=settings.max_streams)
    refusals = Refusals(trail)
    chain = Chain(
        RequestIds(),
        [
            Observation(metrics, access_log="errors", slow=timedelta(seconds=5)),
            admission,
            ServerRate(TokenBucket(0, 1) if server_rate is None else server_rate),
            Announcement(),
            Authentication(keys, client_certificates=settings.tls.client_ca is not None),
            CallerRate(TokenBuckets(0, 1) if caller_rate is None else caller_rate, refusals),
            Scopes(refusals),
            Deadlines(),
            Validation(),
            *more,
        ],
        max_message_bytes=settings.max_message_bytes,
    )
    board, echo = HealthBoard(), Echo()
    server = RpcServer(settings, chain, board)
    server.add(echo, register, needs=("database",))
    await server.start()
    try:
        yield Served(echo, server, board, metrics, admission, keys, trail)
    finally:
        await server.stop(timedelta())


def with_key(key: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a key."""
    return (("authorization", f"Bearer {key}"),)


async def refused(call: Any, **options: Any) -> grpc.aio.AioRpcError:
    """How the server ends a client stream that it refuses before it reads of it: nothing is sent.

    grpc.aio takes a message that it sends after the server has ended the call for a failure of its own, and forgets the
    server's status over it (https://github.com/grpc/grpc/issues/36066). A server that refuses nothing waits for the
    first message: DEADLINE_EXCEEDED.
    """
    stream = call(timeout=10, **options)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (stream.read() if isinstance(stream, grpc.aio.StreamStreamCall) else stream)
    return raised.value


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Message]:
    """The details of a status, by the name of their type."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata() or ())[DETAILS_KEY])
    assert status.code == error.code().value[0]
    found: dict[str, Message] = {}
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        detail: Message = getattr(error_details_pb2, name)()
        assert packed.Unpack(detail)
        found[name] = detail
    return found


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The ErrorReason of a status."""
    info: Any = details_of(error)["ErrorInfo"]
    assert info.domain == "stationmaster"
    return str(info.reason)
