"""An organization is told by a POST of every permission that is asked for: a work item each, signed, retried."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx2

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from stationmaster_server.identity.model import Webhook
from stationmaster_server.identity.store import webhook_of
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.webhooks import signed
from stationmaster_server.sessions import permission_store
from stationmaster_server.sessions.model import PermissionRequest, permission_name, session_name, turn_name
from stationmaster_server.work.model import (
    Failed,
    NewWork,
    Outcome,
    Priority,
    Released,
    RetryPolicy,
    Succeeded,
    Timeouts,
)
from stationmaster_server.work.queue import WorkQueue
from stationmaster_server.work.run import Run

KIND = "permission_webhook"
RETRY = RetryPolicy(attempts=10, initial=timedelta(seconds=1), factor=3, cap=timedelta(minutes=5))
"""For about twenty minutes."""
LIMIT = timedelta(seconds=5)
"""Of one attempt: a receiver that is slow holds a worker's slot."""
MAX_ARGUMENTS = 16 * 1024
LONGEST = timedelta(hours=1)
"""A request is told of within that, or not at all: while a receiver is left alone, no attempt counts."""
_MAX_ANSWER = 4 * 1024
_PAUSE = timedelta(seconds=10)
_MOST_BREAKERS = 1_000

logger = logging.getLogger(__name__)


async def announce(tx: Transaction, queue: WorkQueue, caller: Caller, requests: Sequence[PermissionRequest]) -> None:
    """Have the organization told of requests, if it wants to be; in the transaction that makes them."""
    tenant = caller.tenant
    if await webhook_of(tx, tenant.organization_id) is None:
        return
    try:
        await queue.submit_many(tx, [_item(tenant, request) for request in requests])
    except ResourceExhausted:
        # Whoever is to be told has been down for long; that must not end the turn.
        logger.warning("organization %s is not told of a permission request: its queue is full", tenant.organization_id)


def _item(tenant: Tenant, request: PermissionRequest) -> NewWork:
    return NewWork(
        organization_id=tenant.organization_id,
        user_id=tenant.user_id,
        kind=KIND,
        item_id=request.id,
        subject_id=request.id,
        payload={"session_id": str(request.session_id)},
        priority=Priority.LOW,
        retry=RETRY,
        timeouts=Timeouts(schedule_to_close=LONGEST),
    )


class _Unwell(Exception):
    """The receiver answered, but not as somebody who works."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class PermissionWebhooks:
    """The handler of work items of kind `permission_webhook`."""

    def __init__(self, database: Database, outbound: Outbound, *, limit: timedelta = LIMIT) -> None:
        self._database = database
        self._outbound = outbound
        self._limit = limit
        self._breakers: OrderedDict[tuple[UUID, str], CircuitBreaker] = OrderedDict()

    async def __call__(self, run: Run) -> Outcome:
        """Tell the organization's receiver, as it is named now."""
        item = run.item
        async with self._database.tenant(Tenant(item.organization_id, item.user_id), read=True) as tx:
            webhook = await webhook_of(tx, item.organization_id)
            try:
                session_id = UUID(item.payload["session_id"])
                request = await permission_store.get(tx, item.organization_id, session_id, item.subject_id)
            except NotFound:
                return Succeeded()  # its session was deleted
        if webhook is None:
            return Succeeded()  # nobody wants to be told any more
        try:
            host = httpx2.URL(webhook.url).host
        except httpx2.InvalidURL:
            return Failed("its URL cannot be read", retryable=False, reason="URL")
        try:
            status = await self._breaker(item.organization_id, webhook.url).call(lambda: self._post(webhook, request))
        except Unavailable as alone:
            return Released(datetime.now(UTC) + (alone.retry_after or RETRY.initial))
        except _Unwell as unwell:
            status = unwell.status
        except FailedPrecondition as refused:
            return Failed(refused.message, retryable=False, reason=refused.reason)
        except TimeoutError:
            return Failed(f"{host} did not answer within {self._limit.total_seconds():g} s", reason="TIMEOUT")
        except httpx2.HTTPError as error:
            # Its text may have the URL, and that a token.
            return Failed(f"{host} could not be told: {type(error).__name__}", reason="CONNECTION")
        if 200 <= status < 300:
            return Succeeded()
        # 410: the receiver wants no more of it.
        return Failed(f"{host} answered with status {status}", retryable=status != 410, reason="STATUS")

    def _breaker(self, organization_id: UUID, url: str) -> CircuitBreaker:
        """One for each receiver: of many that wait for one that is down, one looks whether it is up again."""
        key = (organization_id, url)
        if key not in self._breakers:
            self._breakers[key] = CircuitBreaker(
                "the receiver of permission requests",
                pause=_PAUSE,
                longest_pause=RETRY.cap,
                counts=lambda error: not isinstance(error, FailedPrecondition),
            )
        self._breakers.move_to_end(key)
        while len(self._breakers) > _MOST_BREAKERS:
            self._breakers.popitem(last=False)
        return self._breakers[key]

    async def _post(self, webhook: Webhook, request: PermissionRequest) -> int:
        """The status of the answer; its body is not read. Raises _Unwell for one that tells of a fault over there."""
        body = body_of(request)
        headers = signed(webhook.secret or b"", str(request.id), datetime.now(UTC), body)
        headers["content-type"] = "application/json"
        async with (
            asyncio.timeout(self._limit.total_seconds()),
            self._outbound.client(max_response_bytes=_MAX_ANSWER) as client,
            client.stream("POST", webhook.url, content=body, headers=headers) as response,
        ):
            status = int(response.status_code)
        if status == 429 or status >= 500:
            raise _Unwell(status)
        return status


def body_of(request: PermissionRequest) -> bytes:
    """What a receiver is told. Arguments that are too large to be sent along are left out, and it says so."""
    arguments, breach = request.call.arguments, request.breach
    fit = len(json.dumps(arguments, ensure_ascii=False).encode(errors="replace")) <= MAX_ARGUMENTS
    document = {
        "type": "permission.requested",
        "timestamp": request.created_at.isoformat(),
        "data": {
            "permission_request": permission_name(request.session_id, request.id),
            "session": session_name(request.session_id),
            "turn": turn_name(request.session_id, request.turn_id),
            "tool": request.call.tool,
            "arguments": arguments if fit else {},
            "arguments_truncated": not fit,
            "limit": None if breach is None else asdict(breach),
            "expire_time": None if request.expires_at is None else request.expires_at.isoformat(),
        },
    }
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode()
