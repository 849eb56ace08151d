"""`App`: one server process, from its settings to a port that answers, and back."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType

import structlog

from stationmaster_server.app.admin import AdminServer
from stationmaster_server.app.database import connect, database_url, place_of
from stationmaster_server.app.embedding import build_embedder
from stationmaster_server.app.engines import build_engines, build_worker
from stationmaster_server.app.ground import Ground
from stationmaster_server.app.identity import build_gate
from stationmaster_server.app.local import claim_ports, make_data_folder, published
from stationmaster_server.app.maintenance import add_engines, build_maintenance, build_registry
from stationmaster_server.app.pools import build_pools
from stationmaster_server.app.rooms import add_rooms
from stationmaster_server.app.transport import build_chain
from stationmaster_server.app.watchdog import DATABASE, Watchdog
from stationmaster_server.config import Settings
from stationmaster_server.db.listener import Listener
from stationmaster_server.identity.bootstrap import KEY_FILE
from stationmaster_server.identity.installation import shared_secret
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.pulse import Pulse
from stationmaster_server.rpc.health import HealthBoard
from stationmaster_server.rpc.server import RpcServer
from stationmaster_server.telemetry import tracing
from stationmaster_server.telemetry.metrics import Metrics
from stationmaster_server.telemetry.monitor import ResourceMonitor
from stationmaster_server.wire.paging import PageTokens
from stationmaster_server.work.worker import Worker

PAGE_TOKENS = "page tokens"
_log = structlog.get_logger(__name__)


class App:
    """`async with App(settings) as app`: it serves inside the body. Raises StartupError when it cannot."""

    def __init__(self, settings: Settings, *, clock: Callable[[], datetime] | None = None) -> None:
        """`clock`: that schedules go by, in place of the machine's and the database's."""
        self.settings = settings
        self._clock = clock
        self.board = HealthBoard()
        self.metrics = Metrics()
        self._looks = Pulse()
        self._monitor = ResourceMonitor(self.metrics, settings.telemetry.monitor_interval, self._looks.beat)
        self.port = 0
        """Where it serves calls, once entered."""
        self.admin_port = 0
        """Where it serves operators; 0 when that is off."""
        self.database_url = ""
        self._stack = AsyncExitStack()
        self._force = asyncio.Event()

    @property
    def key_file(self) -> Path:
        """The key that the first start made."""
        return self.settings.data_folder / KEY_FILE

    @property
    def database_place(self) -> str:
        """Where the data is, for people."""
        if self.settings.database.url is None:
            return f"embedded PostgreSQL in {self.settings.data_folder}"
        return place_of(self.database_url)

    async def __aenter__(self) -> App:
        began = time.perf_counter()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        _log.info("serving", port=self.port, seconds=round(time.perf_counter() - began, 3))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)
        _log.info("stopped")

    def force_stop(self) -> None:
        """Cut the grace short: whoever asked to stop asked again."""
        self._force.set()

    async def _start(self) -> None:
        """Everything in the order of its start; the stack ends it in reverse."""
        settings, stack = self.settings, self._stack
        make_data_folder(settings.data_folder)
        claim_ports(settings)
        traces = self._trace(stack)
        self.database_url = await stack.enter_async_context(database_url(settings))
        database = await connect(self.database_url, settings.database)
        stack.push_async_callback(database.close)
        self.board.require(DATABASE)
        watchdog = await stack.enter_async_context(Watchdog(database, self.board))
        listener = Listener(database)
        gate = await build_gate(stack, settings, database, listener)
        pools = build_pools(stack, settings.pools, self.metrics)
        engines = await build_engines(stack, settings, database, listener)
        server = RpcServer(settings.server, build_chain(settings, gate, self.metrics, traces), self.board)
        tokens = PageTokens(await shared_secret(database, PAGE_TOKENS))
        outbound = Outbound(settings.outbound.allow)
        embedder = build_embedder(stack, settings, pools, outbound)
        background = build_registry(
            settings, database, listener, gate, engines, self.metrics, self._monitor, self._looks, embedder.name
        )
        ground = Ground(
            settings,
            database,
            listener,
            gate,
            engines,
            pools,
            tokens,
            background,
            outbound,
            embedder,
            self.metrics,
            self.board,
            self._clock,
        )
        handlers = await add_rooms(stack, server, ground) | build_maintenance(stack, server, ground)
        worker = build_worker(settings, database, listener, engines, handlers)
        add_engines(background, ground, worker)
        await listener.start()
        stack.push_async_callback(listener.stop)
        await self._watch(stack, watchdog)
        await stack.enter_async_context(background)
        worker.start()
        stack.callback(watchdog.lose_patience)
        stack.push_async_callback(self._stop_serving, server, worker)
        self.port = await server.start()
        if settings.server.processes == 1:  # of several, their parent does it
            stack.enter_context(published(settings, self.port, (self.admin_port,)))

    def _trace(self, stack: AsyncExitStack) -> tracing.Tracing | None:
        telemetry = self.settings.telemetry
        instance = f"{socket.gethostname()}:{self.settings.server.port}"
        traces = tracing.set_up(telemetry.otlp_endpoint, sample_ratio=telemetry.sample_ratio, service_instance=instance)
        if traces is not None:
            stack.callback(traces.shutdown)
        return traces

    async def _watch(self, stack: AsyncExitStack, watchdog: Watchdog) -> None:
        """Metrics, and the port for operators."""
        self.metrics.read("database_answer_seconds", "How long the last ping took.", lambda: watchdog.answer_seconds)
        await stack.enter_async_context(self._monitor)
        admin = await stack.enter_async_context(AdminServer(self.settings.admin, self.metrics, self.board))
        self.admin_port = admin.port

    async def _stop_serving(self, server: RpcServer, worker: Worker) -> None:
        """NOT_SERVING, accept nothing more, finish or hand back the work, end the streams: all within the grace."""
        settings = self.settings.server
        forced = asyncio.create_task(self._force.wait())
        orderly = asyncio.create_task(self._stop_in_order(server, worker))
        await asyncio.wait((forced, orderly), return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if not orderly.done():
            _log.warning("told again to stop; not waiting for what is under way", grace=str(settings.shutdown_grace))
            orderly.cancel()
            await asyncio.gather(orderly, return_exceptions=True)
            await server.abort()
        else:
            orderly.result()

    async def _stop_in_order(self, server: RpcServer, worker: Worker) -> None:
        settings = self.settings.server
        await server.drain(settings.drain_delay)
        work_done = asyncio.create_task(worker.stop(settings.shutdown_grace))
        try:
            await server.stop(settings.shutdown_grace, work_done)
            await work_done
        finally:  # told again to stop: leases take care of what is left
            work_done.cancel()
            await asyncio.gather(work_done, return_exceptions=True)
