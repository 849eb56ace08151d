"""Logs: one structured line per happening, for people or as JSON, with the request id and without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TextIO

import structlog

from stationmaster_server.telemetry import context
from stationmaster_server.telemetry.masking import mask

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]


def set_up(level: Level = "info", fmt: Format = "auto", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's logs to standard error in one form. The one global of the server."""
    target = stream or sys.stderr
    as_json = fmt == "json" or (fmt == "auto" and not target.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        add_call,
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    renderer = (
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=target.isatty())
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("alembic", "asyncio", "grpc", "httpcore2", "httpx2", "mcp"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def add_call(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the ids of the call that runs now."""
    if request_id := context.request_id.get():
        line.setdefault("request_id", request_id)
    if trace_id := context.trace_id.get():
        line.setdefault("trace_id", trace_id)
    return line


def hide_secrets(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what must not be read in a log."""
    for name, value in line.items():
        if not name.startswith("_"):
            line[name] = mask(value, name)
    return line
