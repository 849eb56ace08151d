"""Sessions behind a real gRPC server and channel; every call is one caller's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc
from stationmaster.v1.session_pb2_grpc import SessionServiceStub
from stationmaster_server.config import ServerSettings
from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.chain import Chain
from stationmaster_server.rpc.health import HealthBoard
from stationmaster_server.rpc.interceptors.base import Before, Interceptor
from stationmaster_server.rpc.interceptors.deadline import Deadlines
from stationmaster_server.rpc.interceptors.request_id import RequestIds
from stationmaster_server.rpc.interceptors.validation import Validation
from stationmaster_server.rpc.method import Method
from stationmaster_server.rpc.server import RpcServer
from stationmaster_server.sessions.permissions import Permissions
from stationmaster_server.sessions.searching import MessageSearch
from stationmaster_server.sessions.service import SessionService
from stationmaster_server.sessions.servicer import SessionServicer
from stationmaster_server.sessions.turns import Turns
from stationmaster_server.sessions.watching import Watching
from stationmaster_server.wire.paging import PageTokens

from tests.embedding.here import embedder_here

if TYPE_CHECKING:
    from stationmaster.v1.session_pb2_grpc import SessionServiceAsyncStub


class Everybody(Interceptor):
    """Lets everybody in as one caller."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def before(self, method: Method) -> Before | None:
        """Set the caller."""

        def enter(call: Call) -> None:
            call.caller = replace(self._caller, method=method.name, request_id=call.request_id)

        return enter


@asynccontextmanager
async def serving(
    caller: Caller,
    database: Database,
    sessions: SessionService,
    watching: Watching,
    turns: Turns,
    permissions: Permissions,
) -> AsyncIterator[SessionServiceAsyncStub]:
    """A stub of a server whose every call is the caller's."""
    chain = Chain(RequestIds(), [Everybody(caller), Deadlines(), Validation()], max_message_bytes=4 * 1024 * 1024)
    server = RpcServer(ServerSettings(port=0), chain, HealthBoard())
    search = MessageSearch(database, embedder_here())
    servicer = SessionServicer(sessions, watching, turns, permissions, search, PageTokens(b"secret"))
    server.add(servicer)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield SessionServiceStub(channel)
    finally:
        await server.abort()
