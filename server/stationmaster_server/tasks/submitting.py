"""Submitting plain executions. Those of one tenant that come while others are committed go in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.requests import claim_many, remember_many
from stationmaster_server.errors import StationmasterError, Unavailable
from stationmaster_server.identity.model import AuditEntry
from stationmaster_server.tasks import execution_store
from stationmaster_server.tasks.execution_store import new_row
from stationmaster_server.tasks.model import Execution, Spec, Trigger, execution_name
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.work import new_work

_MOST = 64

Alone = Callable[[Caller, Spec], Awaitable[Execution]]
"""Submits one execution in a transaction of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    caller: Caller
    spec: Spec
    answer: asyncio.Future[Execution] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Submitting:
    """No timer: whoever comes when nothing is under way goes alone, at once.

    What cannot go with the others (a repeat, a full queue) is done alone after them, and gets the error that it would
    have got.
    """

    def __init__(self, services: TaskServices, alone: Alone) -> None:
        self._services = services
        self._alone = alone
        self._waiting: dict[Tenant, list[_Waiting]] = {}
        self._under_way: dict[Tenant, asyncio.Task[None]] = {}

    async def submit(self, caller: Caller, spec: Spec) -> Execution:
        """Submit an execution that has neither a key nor an id that somebody chose. Raises as `alone` does."""
        waiting = _Waiting(caller, spec)
        self._waiting.setdefault(caller.tenant, []).append(waiting)
        if caller.tenant not in self._under_way:
            # A task of its own: a caller that goes away must not take the others' executions with it.
            self._under_way[caller.tenant] = asyncio.create_task(self._drain(caller.tenant), name="submit executions")
        return await waiting.answer

    async def _drain(self, tenant: Tenant) -> None:
        try:
            while waiting := self._waiting.pop(tenant, None):
                for start in range(0, len(waiting), _MOST):
                    await self._commit(tenant, [one for one in waiting[start : start + _MOST] if not one.answer.done()])
        finally:
            del self._under_way[tenant]

    async def _commit(self, tenant: Tenant, batch: Sequence[_Waiting]) -> None:
        answers: Sequence[Execution | BaseException | None] = [None] * len(batch)
        if len(batch) > 1:
            # Gathered, so that whatever goes wrong reaches those who wait for it.
            (done,) = await asyncio.gather(self._together(tenant, batch), return_exceptions=True)
            match done:
                case StationmasterError() if not isinstance(done, Unavailable):
                    pass  # nothing was committed
                case BaseException():
                    answers = [done] * len(batch)
                case _:
                    answers = done
        left: list[_Waiting] = []
        for one, answer in zip(batch, answers, strict=True):
            if answer is None:
                left.append(one)
            else:
                _answer(one, answer)
        for one in left:
            (made,) = await asyncio.gather(self._alone(one.caller, one.spec), return_exceptions=True)
            _answer(one, made)

    async def _together(self, tenant: Tenant, batch: Sequence[_Waiting]) -> list[Execution | None]:
        """Those of which the request id is new, in one transaction; None for the others."""
        organization_id = tenant.organization_id
        async with self._services.database.tenant(tenant) as tx:
            fresh = await claim_many(tx, tenant, [one.caller.request_key for one in batch])
            new = [one for one, is_fresh in zip(batch, fresh, strict=True) if is_fresh]
            if not new:
                return [None] * len(batch)
            rows = [new_row(new_id(), one.spec) for one in new]
            works = [
                new_work(tenant, one.spec, row.id, one.caller.request_id) for one, row in zip(new, rows, strict=True)
            ]
            await self._services.queue.submit_many(tx, works)
            await execution_store.insert(tx, organization_id, tenant.user_id, Trigger.AD_HOC, rows)
            entries = [
                (one.caller, AuditEntry("execution.submit", execution_name(row.id)))
                for one, row in zip(new, rows, strict=True)
            ]
            await self._services.audit.write_many(tx, entries)
            found = await execution_store.get_many(tx, organization_id, [row.id for row in rows])
            by_id = {execution.id: execution for execution in found}
            made = [by_id[row.id] for row in rows]
            await remember_many(tx, tenant, [one.caller.request_key for one in new], made)
        answers = iter(made)
        return [next(answers) if is_fresh else None for is_fresh in fresh]


def _answer(one: _Waiting, done: Execution | BaseException) -> None:
    if one.answer.done():
        return
    if isinstance(done, BaseException):
        one.answer.set_exception(done)
    else:
        one.answer.set_result(done)
