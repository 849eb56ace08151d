"""Telling people of what is wrong with a background service, and that it is over: in the log, and by a webhook."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx2
import structlog

from stationmaster_server.db.ids import new_id
from stationmaster_server.errors import StationmasterError
from stationmaster_server.maintenance.base import BackgroundService
from stationmaster_server.maintenance.model import Fault, Figures, service_name
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.webhooks import identified, signed

_ATTEMPTS = 5
_TIMEOUT_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class Alarms:
    """`close` it. Without a URL the log alone tells."""

    def __init__(self, outbound: Outbound, url: str = "", secret: bytes | None = None) -> None:
        self._outbound = outbound
        self._url = url
        self._secret = secret
        self._under_way: set[asyncio.Task[None]] = set()

    async def tell(self, service: BackgroundService[Any], figures: Figures, fault: Fault | None) -> None:
        """Tell of a fault of a service, or that it has none any more. A webhook goes out by itself."""
        name, in_a_row = service_name(service.service_id), figures.failures_in_a_row
        if fault:
            text = "a background service needs somebody"
            _log.error(text, service=name, in_a_row=in_a_row, fault=fault.kind, text=fault.text)
        else:
            _log.info("a background service is well again", service=name)
        if not self._url:
            return
        told = "background_service.unhealthy" if fault else "background_service.recovered"
        kind, text = (fault.kind, fault.text) if fault else ("", "")
        data = {"service": name, "fault": kind, "text": text, "failures_in_a_row": in_a_row}
        body = {"type": told, "timestamp": datetime.now(UTC).isoformat(), "data": data}
        task = asyncio.create_task(self._send(json.dumps(body).encode()), name="alert webhook")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _send(self, body: bytes) -> None:
        """Five attempts within half a minute; then the log has to do."""
        message_id, fault = f"msg_{new_id()}", ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(2**attempt)
            at = datetime.now(UTC)
            headers = signed(self._secret, message_id, at, body) if self._secret else identified(message_id, at)
            try:
                async with self._outbound.client(timeout=httpx2.Timeout(_TIMEOUT_SECONDS)) as client:
                    answer = await client.post(
                        self._url, content=body, headers={**headers, "content-type": "application/json"}
                    )
                if answer.is_success:
                    return
                fault = f"it answered {answer.status_code}"
            except (httpx2.HTTPError, StationmasterError) as error:
                fault = str(error) or type(error).__name__
        _log.error("an alert could not be delivered", attempts=_ATTEMPTS, fault=fault)
