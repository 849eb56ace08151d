"""Our server as its users run it: its own PostgreSQL with fsync, an API key, every check; on a fresh data folder."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2
from stationmaster.v1 import identity_pb2, identity_pb2_grpc

from benchmarks.load.channel import channel, unary_call
from benchmarks.postgres import temporary_folder
from benchmarks.processes import ROOT, clean_environment, free_port, memory_bytes, stop, until

_NO_SMALL_LIMIT = 1_000_000_000


class Server:
    """One server process and the folder of its data."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._environment = environment or {}
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What a caller sends with each call."""
        return [("authorization", f"Bearer {(self.folder / 'admin.key').read_text().strip()}")]

    async def start(self) -> float:
        """Start it; seconds until it says SERVING."""
        environment = {
            "STATIONMASTER_DATA_FOLDER": str(self.folder),
            "STATIONMASTER_SERVER__PORT": str(self.port),
            "STATIONMASTER_ADMIN__PORT": "0",
            **self._environment,
        }
        began = time.perf_counter()
        with (self.folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "stationmaster_server", "serve"),
                cwd=ROOT,
                env=clean_environment(environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await until(self._serving, seconds=60)
        return time.perf_counter() - began

    async def _serving(self) -> bool:
        if self._process is None or self._process.returncode is not None:
            raise RuntimeError(f"the server ended while it started:\n{self.log_tail()}")
        async with channel(self.target) as one:
            try:
                answer = await unary_call(one, "/grpc.health.v1.Health/Check")(b"", timeout=2)
            except grpc.aio.AioRpcError:
                return False
        return health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING

    async def set_quotas(self) -> None:
        """Give the caller quotas that count every call and session, far above what a benchmark uses."""
        async with channel(self.target) as one:
            stub = identity_pb2_grpc.IdentityServiceStub(one)
            who = await stub.WhoAmI(identity_pb2.WhoAmIRequest(), metadata=self.metadata)
            quota = identity_pb2.Quota(
                name=f"{who.user.name}/quota",
                max_concurrent_sessions=_NO_SMALL_LIMIT,
                max_calls_per_hour=_NO_SMALL_LIMIT,
            )
            await stub.SetQuota(identity_pb2.SetQuotaRequest(quota=quota), metadata=self.metadata)

    def memory_bytes(self) -> int:
        """What its own processes keep in memory, PostgreSQL not counted."""
        mine = [self.pid]
        for process in psutil.process_iter(["pid", "name", "cmdline"]):
            command = " ".join(process.info["cmdline"] or ())
            if str(self.folder) in command and not (process.info["name"] or "").startswith("postgres"):
                mine.append(process.info["pid"])
        return sum(memory_bytes(pid) for pid in set(mine))

    def log_tail(self) -> str:
        """The end of its log."""
        return "\n".join((self.folder / "server.log").read_text(errors="replace").splitlines()[-15:])

    async def stop(self) -> None:
        """End it, and its PostgreSQL with it."""
        if self._process is not None:
            await stop(self._process)
        await until(self._postgres_is_gone, seconds=40)

    async def _postgres_is_gone(self) -> bool:
        return not any(self.folder.rglob("postmaster.pid"))


@asynccontextmanager
async def our_server(*, started: bool = True, environment: Mapping[str, str] | None = None) -> AsyncIterator[Server]:
    """A server for as long as the block, with quotas; `environment`: settings that are not the default ones."""
    with temporary_folder("server") as folder:
        server = Server(folder, environment)
        try:
            if started:
                await server.start()
                await server.set_quotas()
            yield server
        finally:
            await server.stop()
