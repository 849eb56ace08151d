"""What a call hears while it runs: progress and log messages, few and short enough to be passed on."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from stationmaster_server.mcp.rate import Throttle
from stationmaster_server.mcp.reading import Reader

if TYPE_CHECKING:
    from stationmaster_server.mcp.connections import CallListener

_TEXT_CHARS = 4096


class Listener:
    """Passes on to a CallListener, within bounds, until it is closed."""

    def __init__(self, inner: CallListener | None, reader: Reader) -> None:
        self._inner = inner
        self._reader = reader
        self._progress = Throttle(per_second=10, burst=20)
        self._logs = Throttle(per_second=10, burst=50)

    def close(self) -> None:
        """The call is over."""
        self._inner = None

    async def on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        """A progress notification of this call."""
        if self._inner is None or not self._progress.passes():
            return
        known = total is not None and total > 0 and math.isfinite(progress) and math.isfinite(total)
        fraction = min(max(progress / total, 0.0), 1.0) if known and total else None
        self._inner.progress(self._reader.label(message, _TEXT_CHARS), fraction)

    def on_log(self, level: str, logger: str | None, data: Any) -> None:
        """A log notification of the connection."""
        if self._inner is None or not self._logs.passes():
            return
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        self._inner.log(level, self._reader.label(logger, 256), self._reader.label(text, _TEXT_CHARS))
