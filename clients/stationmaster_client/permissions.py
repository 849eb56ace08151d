"""Permission requests: tool calls that wait for somebody's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from google.protobuf.struct_pb2 import Struct
from stationmaster.v1 import session_pb2, session_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query


class Permissions:
    """`sessions/…/permissionRequests/…`. The first answer stands; a later one raises FailedPrecondition."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = session_pb2_grpc.SessionServiceStub(calls.channel)

    def list(
        self, session: str = "-", **query: Unpack[Query]
    ) -> Listing[session_pb2.PermissionRequest, session_pb2.ListPermissionRequestsResponse]:
        """List the requests of one session, or of all; `filter="state = PENDING"` for those that wait."""

        async def fetch(token: str) -> session_pb2.ListPermissionRequestsResponse:
            request = session_pb2.ListPermissionRequestsRequest(
                parent=full("sessions", session), page_token=token, **query
            )
            return await self._calls.unary(self._stub.ListPermissionRequests, request)

        return Listing(fetch, lambda page: page.permission_requests)

    async def allow(
        self, name: str, *, for_session: bool = False, arguments: Mapping[str, Any] | None = None
    ) -> session_pb2.PermissionRequest:
        """Let the call run: once, from now on in this session, or once with other arguments."""
        once, always = session_pb2.PERMISSION_DECISION_ALLOW_ONCE, session_pb2.PERMISSION_DECISION_ALLOW_FOR_SESSION
        return await self._resolve(name, always if for_session else once, arguments=arguments)

    async def deny(self, name: str, message: str = "") -> session_pb2.PermissionRequest:
        """Refuse the call; the model is told `message`."""
        return await self._resolve(name, session_pb2.PERMISSION_DECISION_DENY, message=message)

    async def _resolve(
        self,
        name: str,
        decision: session_pb2.PermissionDecision.ValueType,
        *,
        message: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> session_pb2.PermissionRequest:
        request = session_pb2.ResolvePermissionRequestRequest(name=name, decision=decision, message=message)
        if arguments is not None:
            edited = Struct()
            edited.update(arguments)
            request.edited_arguments.CopyFrom(edited)
        return await self._calls.unary(self._stub.ResolvePermissionRequest, request)
