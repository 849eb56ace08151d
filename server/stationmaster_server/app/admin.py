"""The port for operators: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever runs the server. HTTP/1.1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

import structlog

from stationmaster_server.config import AdminSettings
from stationmaster_server.rpc.health import SERVING, WHOLE_SERVER, HealthBoard
from stationmaster_server.rpc.port import claim
from stationmaster_server.telemetry.metrics import CONTENT_TYPE, Metrics

_REQUEST_LIMIT = 5.0
_LINES = 100
_log = structlog.get_logger(__name__)

Answer = tuple[int, str, bytes]


class AdminServer:
    """`async with` it. Small on purpose: GET only, one request for each connection."""

    def __init__(self, settings: AdminSettings, metrics: Metrics, board: HealthBoard) -> None:
        self._settings = settings
        self._metrics = metrics
        self._board = board
        self._server: asyncio.Server | None = None
        self._pages: Mapping[str, Callable[[], Answer]] = {
            "/metrics": lambda: (200, CONTENT_TYPE, self._metrics.render()),
            "/healthz": lambda: (200, "text/plain", b"alive\n"),
            "/readyz": self._readiness,
        }

    @property
    def port(self) -> int:
        """The port it listens on; 0 when it is off."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else 0

    async def __aenter__(self) -> AdminServer:
        if self._settings.enabled:
            claim(self._settings.host, self._settings.port, setting="admin.port")
            self._server = await asyncio.start_server(self._serve, self._settings.host, self._settings.port)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_LIMIT):
                status, kind, body = self._answer(await _read_head(reader))
                headers = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
                writer.write(f"HTTP/1.1 {status} \r\n{headers}\r\n\r\n".encode() + body)
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError, asyncio.IncompleteReadError):
            pass  # whoever asked went away or spoke something else
        finally:
            writer.close()

    def _answer(self, request_line: str) -> Answer:
        method, path, *_ = [*request_line.split(), "", ""]
        page = self._pages.get(path.partition("?")[0])
        if method not in {"GET", "HEAD"}:
            return 405, "text/plain", b"GET only\n"
        if page is None:
            return 404, "text/plain", f"there are: {', '.join(self._pages)}\n".encode()
        return page()

    def _readiness(self) -> Answer:
        ready = self._board.status(WHOLE_SERVER) == SERVING
        body = {"ready": ready, "missing": self._board.missing}
        return 200 if ready else 503, "application/json", json.dumps(body).encode() + b"\n"


async def _read_head(reader: asyncio.StreamReader) -> str:
    """Read the request line and skip the headers."""
    first = (await reader.readline()).decode("latin-1")
    for _ in range(_LINES):
        if await reader.readline() in {b"\r\n", b"\n", b""}:
            return first
    raise ValueError("too many headers")
