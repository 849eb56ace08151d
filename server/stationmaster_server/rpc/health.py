"""`grpc.health.v1.Health`: which services can do their work now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from grpc_health.v1 import health_pb2, health_pb2_grpc

from stationmaster_server.errors import NotFound
from stationmaster_server.rpc.call import Context

SERVICE = "grpc.health.v1.Health"
WHOLE_SERVER = ""

_Status = health_pb2.HealthCheckResponse.ServingStatus
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthBoard:
    """What each service needs, and which needs are met. A service serves while all of its needs are met."""

    def __init__(self) -> None:
        self._needs: dict[str, frozenset[str]] = {WHOLE_SERVER: frozenset()}
        self._missing: dict[str, str] = {}
        self._draining = False
        self._changed = asyncio.Event()

    def add(self, service: str, needs: Iterable[str] = ()) -> None:
        """Put a service on the board."""
        self._needs[service] = frozenset(needs)
        self._tell(True)

    def require(self, need: str) -> None:
        """Make a need one of the whole server."""
        self._needs[WHOLE_SERVER] |= {need}

    def lose(self, need: str, reason: str) -> bool:
        """Note that a need is gone; whether that is news."""
        news = need not in self._missing
        self._missing[need] = reason
        self._tell(news)
        return news

    def regain(self, need: str) -> bool:
        """Note that a need is met again; whether that is news."""
        news = self._missing.pop(need, None) is not None
        self._tell(news)
        return news

    def drain(self) -> None:
        """Say NOT_SERVING for everything, for good: the server is about to stop."""
        self._draining = True
        self._tell(True)

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop, or stops."""
        return self._draining

    @property
    def missing(self) -> dict[str, str]:
        """Needs that are not met, and why."""
        return dict(self._missing)

    def status(self, service: str) -> _Status:
        """Return the status of a service; UNKNOWN for one that is not on the board."""
        needs = self._needs.get(service)
        if needs is None:
            return UNKNOWN
        return NOT_SERVING if self._draining or not needs.isdisjoint(self._missing) else SERVING

    def all(self) -> dict[str, _Status]:
        """Return the status of every service and of the whole server."""
        return {service: self.status(service) for service in self._needs}

    async def watch(self, service: str) -> AsyncIterator[_Status]:
        """Yield the status now and whenever it changes."""
        told: _Status | None = None
        while True:
            changed = self._changed
            status = self.status(service)
            if status != told:
                told = status
                yield status
            else:
                await changed.wait()

    def _tell(self, news: bool) -> None:
        if news:
            self._changed.set()
            self._changed = asyncio.Event()


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Reads the board. `List` stands in the proto and in no other Python server."""

    def __init__(self, board: HealthBoard) -> None:
        self._board = board

    async def Check(  # noqa: N802 - the name in the proto, as below
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Tell one status. Errors: NOT_FOUND for a service that is not served here."""
        status = self._board.status(request.service)
        if status == UNKNOWN:
            raise NotFound("service", request.service)
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Tell one status now and at each change; SERVICE_UNKNOWN is no error here, as the proto says."""
        async for status in self._board.watch(request.service):
            yield health_pb2.HealthCheckResponse(status=status)

    async def List(  # noqa: N802
        self, request: health_pb2.HealthListRequest, context: Context
    ) -> health_pb2.HealthListResponse:
        """Tell all statuses."""
        statuses = self._board.all().items()
        return health_pb2.HealthListResponse(
            statuses={service: health_pb2.HealthCheckResponse(status=status) for service, status in statuses}
        )
