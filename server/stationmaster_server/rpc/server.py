"""The gRPC server: its options, its port, its services, and how it stops."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2_grpc

from stationmaster_server.config import ServerSettings, StartupError
from stationmaster_server.rpc import reflection, tls
from stationmaster_server.rpc.chain import Chain
from stationmaster_server.rpc.health import SERVICE as HEALTH_SERVICE
from stationmaster_server.rpc.health import HealthBoard, HealthServicer
from stationmaster_server.rpc.method import Handler, describe
from stationmaster_server.rpc.port import address_of, claim

# grpc's own message for what is too large carries no details; up to this much more is read so that ours can be sent.
_OVERSIZE_BYTES = 4 * 1024 * 1024

Register = Callable[[Any, grpc.aio.Server], None]


class RpcServer:
    """Serves what was added, once started. Every method passes the chain of interceptors."""

    def __init__(self, settings: ServerSettings, chain: Chain, board: HealthBoard) -> None:
        self._settings = settings
        self._chain = chain
        self._board = board
        self._server = grpc.aio.server(options=_options(settings))
        self._services: list[str] = []
        self._methods = _Methods(chain.unknown_methods())
        self.port = 0
        """The port it listens on, once started."""

    def add(self, servicer: object, register: Register | None = None, needs: Iterable[str] = ()) -> None:
        """Add a servicer, by the `add_…_to_server` beside its base class. `needs`: what it cannot do without."""
        recorder = _Recorder()
        (register or _register_of(servicer))(servicer, cast("grpc.aio.Server", recorder))
        for service, handlers in recorder.services.items():
            self._board.add(service, needs)
            self._add_handlers(service, handlers, open_to_all=False)

    async def start(self) -> int:
        """Listen; return the port. Raises StartupError when the address cannot be had."""
        self._add_health()
        if self._settings.reflection:
            for service, handlers in reflection.handlers(self._services).items():
                self._add_handlers(service, handlers, open_to_all=self._settings.open_reflection)
        self._server.add_generic_rpc_handlers((self._methods,))
        self.port = self._listen()
        await self._server.start()
        return self.port

    @property
    def draining(self) -> bool:
        """Whether it is about to stop, or stops: a stream that ends now was not left by its reader."""
        return self._board.draining

    def callers_changed(self, payload: str | None) -> None:
        """Look whether the callers of open streams may still call; `payload`: of the notification, None if lost."""
        self._chain.callers_changed(payload)

    async def drain(self, delay: timedelta) -> None:
        """Say NOT_SERVING and go on for `delay`, so that whoever spreads the calls learns of it."""
        self._board.drain()
        await asyncio.sleep(delay.total_seconds())

    async def stop(self, grace: timedelta, work_done: asyncio.Future[Any] | None = None) -> None:
        """Accept nothing more and wait for the calls under way, at most `grace`; streams end once `work_done` is.

        A stream that is ended so answers UNAVAILABLE: its reader resumes at another server, or at this one restarted.
        """
        stopping = asyncio.ensure_future(self._server.stop(grace.total_seconds()))
        if work_done is not None:
            await asyncio.wait((work_done, stopping), return_when=asyncio.FIRST_COMPLETED)
        self._chain.end_streams()
        await stopping

    async def abort(self) -> None:
        """Stop at once, whatever is under way."""
        await self._server.stop(0)

    def _add_health(self) -> None:
        recorder = _Recorder()
        register: Register = health_pb2_grpc.add_HealthServicer_to_server
        register(HealthServicer(self._board), cast("grpc.aio.Server", recorder))
        self._add_handlers(HEALTH_SERVICE, recorder.services[HEALTH_SERVICE], open_to_all=self._settings.open_health)

    def _add_handlers(self, service: str, handlers: Mapping[str, Handler], *, open_to_all: bool) -> None:
        self._services.append(service)
        for name, handler in handlers.items():
            method = describe(service, name, open_to_all=open_to_all)
            self._methods.add(method.path, self._chain.wrap(method, handler))

    def _listen(self) -> int:
        settings = self._settings
        claim(settings.host, settings.port, shared=settings.processes > 1)
        address = address_of(settings.host, settings.port)
        try:
            if settings.tls.enabled:
                return self._server.add_secure_port(address, tls.credentials(settings.tls))
            return self._server.add_insecure_port(address)
        except RuntimeError:
            raise StartupError(f"cannot listen on {address}; is server.host an address of this machine?") from None


def _register_of(servicer: object) -> Register:
    """Find the function that generated code has for the servicer's base class."""
    for base in type(servicer).__mro__:
        register: Register | None = getattr(sys.modules[base.__module__], f"add_{base.__name__}_to_server", None)
        if register is not None:
            return register
    raise TypeError(f"{type(servicer).__name__} extends no generated servicer")


class _Methods(grpc.GenericRpcHandler):
    """All methods under one generic handler.

    Of methods that are registered one by one, grpc waits for the next call of each: it asks all of them at every call,
    which of 160 methods costs more than all interceptors.
    """

    def __init__(self, unknown: grpc.GenericRpcHandler) -> None:
        self._handlers: dict[str, Handler] = {}
        self._unknown = unknown

    def add(self, path: str, handler: Handler) -> None:
        """Serve a method."""
        self._handlers[path] = handler

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a method."""
        handler = self._handlers.get(handler_call_details.method)
        return self._unknown.service(handler_call_details) if handler is None else handler


class _Recorder:
    """Stands in for a server while generated code registers, and keeps the handlers."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Handler]] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Ignored: the same handlers come by the other way."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """Keep the handlers of a service."""
        self.services[service] = handlers


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    def ms(duration: timedelta) -> int:
        return int(duration.total_seconds() * 1000)

    return [
        # Without these, grpcio >= 1.83 answers a burst of about 1,000 waiting calls with bare CANCELLED.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 200_000),
        # A call waits as long as its own deadline says; the default of 30 s ends it with bare CANCELLED.
        ("grpc.server_max_unrequested_time_in_server", 3_600),
        ("grpc.max_receive_message_length", settings.max_message_bytes + _OVERSIZE_BYTES),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        ("grpc.keepalive_time_ms", ms(settings.keepalive_interval)),
        ("grpc.keepalive_timeout_ms", ms(settings.keepalive_timeout)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        # grpc jitters the age by a tenth itself.
        ("grpc.max_connection_age_ms", ms(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", ms(settings.max_connection_age_grace)),
        # Without it a second server on the port is refused rather than given half of the calls.
        ("grpc.so_reuseport", int(settings.processes > 1)),
    ]
