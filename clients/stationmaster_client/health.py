"""Whether the server and each of its services is well (grpc.health.v1)."""

from __future__ import annotations

from collections.abc import Mapping

from grpc import aio
from grpc_health.v1 import health_pb2

from stationmaster_client.calls import Calls


class Health:
    """The health service."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._check: aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
        self._check = calls.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._list: aio.UnaryUnaryMultiCallable[health_pb2.HealthListRequest, health_pb2.HealthListResponse]
        self._list = calls.channel.unary_unary(
            "/grpc.health.v1.Health/List",
            request_serializer=health_pb2.HealthListRequest.SerializeToString,
            response_deserializer=health_pb2.HealthListResponse.FromString,
        )

    async def check(self, service: str = "") -> str:
        """`SERVING`, `NOT_SERVING` or `UNKNOWN`, of the whole server or of one service."""
        answer = await self._calls.unary(self._check, health_pb2.HealthCheckRequest(service=service))
        return _name(answer)

    async def services(self) -> Mapping[str, str]:
        """The state of every service by its full name; the whole server under the empty name."""
        answer = await self._calls.unary(self._list, health_pb2.HealthListRequest())
        return {name: _name(status) for name, status in sorted(answer.statuses.items())}


def _name(answer: health_pb2.HealthCheckResponse) -> str:
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
