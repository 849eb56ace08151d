"""The receiver of alerts is told by a POST: a work item each, signed as Standard Webhooks has it, and retried."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2

from stationmaster_server.db.ids import new_id
from stationmaster_server.resilience.webhooks import identified, signed
from stationmaster_server.work.model import Failed, NewWork, Outcome, Priority, RetryPolicy, Succeeded, Timeouts
from stationmaster_server.work.run import Run

KIND = "maintenance_alert"
_RETRY = RetryPolicy(attempts=10, initial=timedelta(seconds=1), factor=3, cap=timedelta(minutes=5))
_LONGEST = timedelta(hours=1)
"""So long it is tried."""
_TIMEOUT = timedelta(seconds=10)


def work_for(organization_id: UUID, user_id: UUID, body: Mapping[str, Any]) -> NewWork:
    """The work item that tells of something; `body` is what is sent."""
    item_id = new_id()
    return NewWork(
        organization_id,
        user_id,
        KIND,
        item_id,
        dict(body),
        priority=Priority.HIGH,
        item_id=item_id,
        retry=_RETRY,
        timeouts=Timeouts(schedule_to_close=_LONGEST),
    )


class AlertWebhook:
    """The handler of work items of kind `maintenance_alert`."""

    def __init__(self, url: str, secret: bytes | None) -> None:
        """The receiver is the operator's, wherever it is; without a secret it is told unsigned."""
        self._url = url
        self._secret = secret

    async def __call__(self, run: Run) -> Outcome:
        """Tell the receiver; none is named any more: then nobody wants to be told."""
        if not self._url:
            return Succeeded()
        body = json.dumps(run.item.payload, separators=(",", ":")).encode()
        try:
            # Seldom, and certificates take their time to be read: not at every start of a server.
            async with httpx2.AsyncClient(timeout=_TIMEOUT.total_seconds(), follow_redirects=False) as client:
                response = await client.post(self._url, content=body, headers=self._headers(run, body))
        except httpx2.HTTPError as error:  # its text may have the URL, and that a token
            return Failed(f"the receiver of alerts could not be told: {type(error).__name__}", reason="CONNECTION")
        if response.is_success:
            return Succeeded()
        gone = response.status_code == httpx2.codes.GONE
        return Failed(f"the receiver answered with status {response.status_code}", retryable=not gone, reason="STATUS")

    def _headers(self, run: Run, body: bytes) -> dict[str, str]:
        message_id, now = str(run.item.item_id), datetime.now(UTC)
        signature = identified(message_id, now) if self._secret is None else signed(self._secret, message_id, now, body)
        return {**signature, "content-type": "application/json"}
