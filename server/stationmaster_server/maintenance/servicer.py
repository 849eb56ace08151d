"""MaintenanceService: messages in, the service, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
from stationmaster.v1 import maintenance_pb2 as pb
from stationmaster.v1 import maintenance_pb2_grpc

from stationmaster_server.maintenance import convert
from stationmaster_server.maintenance.operations import Operations
from stationmaster_server.maintenance.service import Maintenance
from stationmaster_server.wire.caller import caller_of, current_caller
from stationmaster_server.wire.fields import mapping, masked, span
from stationmaster_server.wire.names import parse
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]
_WATCH_SECONDS = 2.0


class MaintenanceServicer(maintenance_pb2_grpc.MaintenanceServiceServicer):
    """The methods of MaintenanceService."""

    def __init__(self, maintenance: Maintenance, operations: Operations, tokens: PageTokens) -> None:
        self._maintenance = maintenance
        self._operations = operations
        self._tokens = tokens

    async def ListBackgroundServices(
        self, request: pb.ListBackgroundServicesRequest, context: Context
    ) -> pb.ListBackgroundServicesResponse:
        """A page of services."""
        asked = self._tokens.read(request)
        page = await self._maintenance.list(current_caller(), request.filter, request.order_by, asked)
        services, token = self._tokens.page(request, page, convert.service_to_proto)
        return pb.ListBackgroundServicesResponse(background_services=services, next_page_token=token)

    async def GetBackgroundService(
        self, request: pb.GetBackgroundServiceRequest, context: Context
    ) -> pb.BackgroundService:
        """One service."""
        return convert.service_to_proto(await self._maintenance.get(current_caller(), _id(request.name)))

    async def UpdateBackgroundService(
        self, request: pb.UpdateBackgroundServiceRequest, context: Context
    ) -> pb.BackgroundService:
        """Other settings."""
        service = request.background_service
        changes = convert.changes_from_proto(service, masked(request, convert.UPDATABLE))
        service_id = _id(service.name, "background_service.name")
        changed = await self._maintenance.update(caller_of(request), service_id, changes, service.etag)
        return convert.service_to_proto(changed)

    async def PauseBackgroundService(
        self, request: pb.PauseBackgroundServiceRequest, context: Context
    ) -> pb.BackgroundService:
        """A service held."""
        changed = await self._maintenance.pause(caller_of(request), _id(request.name), request.reason)
        return convert.service_to_proto(changed)

    async def ResumeBackgroundService(
        self, request: pb.ResumeBackgroundServiceRequest, context: Context
    ) -> pb.BackgroundService:
        """A service let go on."""
        return convert.service_to_proto(await self._maintenance.resume(caller_of(request), _id(request.name)))

    async def TriggerOperation(self, request: pb.TriggerOperationRequest, context: Context) -> pb.Operation:
        """An operation begun."""
        service_id = _id(request.service, "service")
        arguments = mapping(request.arguments, "arguments")
        operation = await self._operations.trigger(caller_of(request), service_id, request.operation, arguments)
        return convert.operation_to_proto(operation)

    async def GetOperation(self, request: pb.GetOperationRequest, context: Context) -> pb.Operation:
        """One operation."""
        operation_id = parse(convert.OPERATION_NAME, request.name)
        return convert.operation_to_proto(await self._operations.get(current_caller(), operation_id))

    async def ListOperations(self, request: pb.ListOperationsRequest, context: Context) -> pb.ListOperationsResponse:
        """A page of operations."""
        asked = self._tokens.read(request)
        page = await self._operations.list(current_caller(), request.filter, request.order_by, asked)
        operations, token = self._tokens.page(request, page, convert.operation_to_proto)
        return pb.ListOperationsResponse(operations=operations, next_page_token=token)

    async def WatchBackgroundServices(
        self, request: pb.WatchBackgroundServicesRequest, context: Context
    ) -> AsyncGenerator[pb.WatchBackgroundServicesResponse, None]:
        """All services, then those that change."""
        async with aclosing(self._maintenance.watch(current_caller())) as batches:
            async for views in batches:
                services = map(convert.service_to_proto, views)
                yield pb.WatchBackgroundServicesResponse(background_services=services)

    async def GetSystemStatus(self, request: pb.GetSystemStatusRequest, context: Context) -> pb.SystemStatus:
        """How the installation is."""
        return convert.status_to_proto(await self._maintenance.status(current_caller()))

    async def WatchSystemStatus(
        self, request: pb.WatchSystemStatusRequest, context: Context
    ) -> AsyncGenerator[pb.WatchSystemStatusResponse, None]:
        """How the installation is, again and again."""
        pause = span(request, "interval")
        seconds = pause.total_seconds() if pause else _WATCH_SECONDS
        while True:
            status = await self._maintenance.status(current_caller(), watched=True)
            yield pb.WatchSystemStatusResponse(status=convert.status_to_proto(status))
            await asyncio.sleep(seconds)


def _id(name: str, field: str = "name") -> str:
    return parse(convert.SERVICE_NAME, name, str, field=field)
