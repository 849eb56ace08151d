"""Tells the audit trail of calls that the transport refuses, before their callers hear of it."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, NoReturn
from uuid import UUID

from stationmaster_server.errors import StationmasterError
from stationmaster_server.identity.auditing import AuditWriter
from stationmaster_server.identity.model import AuditEntry, Category, Outcome
from stationmaster_server.rpc.call import Call

ACTION = "call.refuse"
_EVERY = 1.0
_MOST_KEPT = 10_000


class Refusals:
    """Writes one event for each refusal, or for all of one user within a second."""

    def __init__(self, audit: AuditWriter) -> None:
        self._audit = audit
        self._told: OrderedDict[UUID, tuple[float, int]] = OrderedDict()

    async def refuse(self, call: Call, error: StationmasterError, **details: Any) -> NoReturn:
        """Write the event, then raise the error. Unavailable when it cannot be written."""
        if call.caller is not None:
            resource = call.method.path.lstrip("/")
            entry = AuditEntry(ACTION, resource, Outcome.DENIED, Category.SECURITY, error.reason.value, details)
            await self._audit.write_refusal(call.caller, entry)
            call.audited = True
        raise error

    async def refuse_often(self, call: Call, error: StationmasterError) -> NoReturn:
        """As `refuse`, for refusals that come by the thousand: the next event tells how many were left out."""
        if call.caller is None:
            raise error
        user, now = call.caller.tenant.user_id, time.monotonic()
        when, left_out = self._told.get(user, (0.0, 0))
        if now - when < _EVERY:
            self._told[user] = (when, left_out + 1)
            raise error
        self._told[user] = (now, 0)
        self._told.move_to_end(user)
        if len(self._told) > _MOST_KEPT:
            self._told.popitem(last=False)
        await self.refuse(call, error, refused_since_last=left_out)
