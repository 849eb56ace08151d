"""Background services, what they are asked to do, and how the installation is. Mostly for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Unpack, cast

from google.protobuf import field_mask_pb2
from grpc import aio
from stationmaster.v1 import maintenance_pb2, maintenance_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.errors import StationmasterError, Unavailable
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query
from stationmaster_client.stream import EventStream, Interruption
from stationmaster_client.times import to_duration
from stationmaster_client.values import to_struct

if TYPE_CHECKING:
    from google.protobuf.message import Message

OnInterruption = Callable[[Interruption], None] | None
ENDED = frozenset({maintenance_pb2.OPERATION_STATE_SUCCEEDED, maintenance_pb2.OPERATION_STATE_FAILED})
RESETTABLE = (
    "interval",
    "max_failures",
    "retry_delay",
    "alert_errors_per_hour",
    "alert_run_time",
    "alert_memory_growth_bytes",
    "alert_handle_growth",
)
"""Fields of a background service that have a default, which `reset` goes back to."""
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 2.0


class Maintenance:
    """`backgroundServices/…` and `operations/…`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = maintenance_pb2_grpc.MaintenanceServiceStub(calls.channel)

    def services(
        self, **query: Unpack[Query]
    ) -> Listing[maintenance_pb2.BackgroundService, maintenance_pb2.ListBackgroundServicesResponse]:
        """List the background services: `maintenance.services(filter="state = UNHEALTHY")`."""

        async def fetch(token: str) -> maintenance_pb2.ListBackgroundServicesResponse:
            request = maintenance_pb2.ListBackgroundServicesRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListBackgroundServices, request)

        return Listing(fetch, lambda page: page.background_services)

    async def service(self, name: str) -> maintenance_pb2.BackgroundService:
        """Return one background service."""
        request = maintenance_pb2.GetBackgroundServiceRequest(name=full("backgroundServices", name))
        return await self._calls.unary(self._stub.GetBackgroundService, request)

    async def update(
        self, service: maintenance_pb2.BackgroundService, fields: Sequence[str], *, request_id: str = ""
    ) -> maintenance_pb2.BackgroundService:
        """Change the named fields of a service, such as `["interval"]`; with its etag only if it is as you read it."""
        request = maintenance_pb2.UpdateBackgroundServiceRequest(
            background_service=service,
            update_mask=field_mask_pb2.FieldMask(paths=fields),
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.UpdateBackgroundService, request)

    async def reset(
        self, name: str, names: Sequence[str], *, request_id: str = ""
    ) -> maintenance_pb2.BackgroundService:
        """Put fields (`max_failures`), or settings that the service alone has, back to their defaults.

        Raises ValueError for a name that is neither, and when there is none.
        """
        if not names:
            raise ValueError("name what is to be by default again")
        service = await self.service(name)
        fields = by_default(service, names)
        # No more than what says it: a repeat under the same id must be the same request.
        bare = maintenance_pb2.BackgroundService(name=service.name)
        if "settings" in fields:
            bare.settings.CopyFrom(service.settings)
        return await self.update(bare, fields, request_id=request_id)

    async def pause(self, name: str, reason: str = "", *, request_id: str = "") -> maintenance_pb2.BackgroundService:
        """Hold a service on every server; the reason is for whoever finds it paused."""
        request = maintenance_pb2.PauseBackgroundServiceRequest(
            name=full("backgroundServices", name), reason=reason, request_id=request_id
        )
        return await self._calls.unary(self._stub.PauseBackgroundService, request)

    async def resume(self, name: str, *, request_id: str = "") -> maintenance_pb2.BackgroundService:
        """Let a service go on at once; one that keeps failing tries again without waiting."""
        request = maintenance_pb2.ResumeBackgroundServiceRequest(
            name=full("backgroundServices", name), request_id=request_id
        )
        return await self._calls.unary(self._stub.ResumeBackgroundService, request)

    async def trigger(
        self,
        service: str,
        operation: str = "run",
        arguments: Mapping[str, Any] | None = None,
        *,
        request_id: str = "",
    ) -> maintenance_pb2.Operation:
        """Have some server do an operation of a service, once; see `wait`."""
        request = maintenance_pb2.TriggerOperationRequest(
            service=full("backgroundServices", service),
            operation=operation,
            arguments=to_struct(arguments),
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.TriggerOperation, request)

    async def operation(self, name: str) -> maintenance_pb2.Operation:
        """Return one operation."""
        request = maintenance_pb2.GetOperationRequest(name=full("operations", name))
        return await self._calls.unary(self._stub.GetOperation, request)

    def operations(
        self, **query: Unpack[Query]
    ) -> Listing[maintenance_pb2.Operation, maintenance_pb2.ListOperationsResponse]:
        """List the organization's operations, newest first: `maintenance.operations(filter="state = FAILED")`."""

        async def fetch(token: str) -> maintenance_pb2.ListOperationsResponse:
            request = maintenance_pb2.ListOperationsRequest(page_token=token, **query)
            return await self._calls.unary(self._stub.ListOperations, request)

        return Listing(fetch, lambda page: page.operations)

    async def wait(self, name: str) -> maintenance_pb2.Operation:
        """Return an operation once it has ended, however it did. Goes on while the server is away."""
        pause = _FIRST_LOOK
        while True:
            try:
                found = await self.operation(name)
            except Unavailable:
                pause = _LONGEST_LOOK
            else:
                if found.state in ENDED:
                    return found
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_LOOK)

    def watch(
        self, *, patience: timedelta | None = None, on_interruption: OnInterruption = None
    ) -> EventStream[maintenance_pb2.BackgroundService]:
        """Every background service as it is now, then each whenever it has changed. Goes on over broken connections."""
        request = maintenance_pb2.WatchBackgroundServicesRequest()
        source = StateSource(
            lambda: self._calls.stream(self._stub.WatchBackgroundServices, request),
            lambda answer: answer.background_services,
        )
        return EventStream(source, patience=patience, on_interruption=on_interruption)

    async def status(self) -> maintenance_pb2.SystemStatus:
        """Tell how the installation is."""
        return await self._calls.unary(self._stub.GetSystemStatus, maintenance_pb2.GetSystemStatusRequest())

    def watch_status(
        self,
        every: timedelta | None = None,
        *,
        patience: timedelta | None = None,
        on_interruption: OnInterruption = None,
    ) -> EventStream[maintenance_pb2.SystemStatus]:
        """How the installation is, again and again. Goes on over broken connections."""
        request = maintenance_pb2.WatchSystemStatusRequest(interval=to_duration(every))
        source = StateSource(
            lambda: self._calls.stream(self._stub.WatchSystemStatus, request), lambda answer: [answer.status]
        )
        return EventStream(source, patience=patience, on_interruption=on_interruption)


def by_default(service: maintenance_pb2.BackgroundService, names: Sequence[str]) -> list[str]:
    """Clear fields, or settings of its own, in the message of a service, as it was read; the fields to `update` then.

    Raises ValueError for a name that is neither.
    """
    fields, message = set(), cast("Message", service)
    for name in names:
        if name in RESETTABLE:
            message.ClearField(name)
            fields.add(name)
        elif name in service.settings.fields:
            del service.settings.fields[name]
            fields.add("settings")
        else:
            known = ", ".join([*RESETTABLE, *sorted(service.settings.fields)])
            raise ValueError(f"{name!r} has no default to go back to; there are {known}")
    return sorted(fields)


class StateSource:
    """How something is now: a stream that broke begins anew, and nothing was missed."""

    last_sequence = 0
    finished = False

    def __init__(
        self, open_it: Callable[[], aio.UnaryStreamCall[Any, Any]], items: Callable[[Any], Sequence[Any]]
    ) -> None:
        self._open = open_it
        self._items = items

    def open(self) -> aio.UnaryStreamCall[Any, Any]:
        """Begin."""
        return self._open()

    def take(self, batch: Any) -> Sequence[Any]:
        """All of it is new."""
        return self._items(batch)

    def must_reopen(self) -> bool:
        """Nothing can be missing."""
        return False

    def end(self) -> StationmasterError | None:
        """It has no end of its own."""
        return Unavailable("the server ended the stream")
