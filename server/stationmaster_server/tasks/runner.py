"""The worker's side of executions: begins an attempt under the lease, runs the kind, tells how it ended."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    LeaseLost,
    PermissionDenied,
    Reason,
    StationmasterError,
    Unavailable,
)
from stationmaster_server.identity.system import system_caller
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.tasks import attempt_store, events
from stationmaster_server.tasks.attempt_store import Stored
from stationmaster_server.tasks.filling import Unfilled
from stationmaster_server.tasks.follow_up import FollowUp
from stationmaster_server.tasks.kinds.base import Done, Kind, KindFailed, Later, is_final
from stationmaster_server.tasks.model import ExecutionState
from stationmaster_server.tasks.owners import disabled, owner_of
from stationmaster_server.tasks.running import MAX_BYTES, Begun, RunningJob
from stationmaster_server.tasks.secrets import join, mask_of
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.tasks.starting import FAULT
from stationmaster_server.work import leases
from stationmaster_server.work.model import Cancelled, Failed, Outcome, Released, Succeeded
from stationmaster_server.work.retry import Decision
from stationmaster_server.work.run import Run

logger = logging.getLogger(__name__)
_ENDED_BY_OTHERS = frozenset({"LEASE_EXPIRED", "START_TO_CLOSE", "HEARTBEAT"})


class ExecutionRunner:
    """The handler of work items of one kind of task."""

    def __init__(self, services: TaskServices, kind: Kind[Any], follow_up: FollowUp) -> None:
        self._services = services
        self._kind = kind
        self._follow_up = follow_up

    async def __call__(self, run: Run) -> Outcome:
        """Run an attempt. Everything that was said is durable before it ends.

        Raises LeaseLost: another worker has the execution.
        """
        run.then, run.requeued = self._follow_up.wake, partial(self._requeued, run)
        begun = await self._begin(run)
        try:
            payload, mask = await self._payload(begun)
        except (InvalidArgument, PermissionDenied, FailedPrecondition) as error:
            return Failed(error.message, retryable=not is_final(error), reason=error.reason)
        job = RunningJob(self._services, begun, payload, mask)
        try:
            outcome = _masked(await self._attempt(run, job), mask)
        except asyncio.CancelledError:
            if not run.lost:  # its time is up, or the server stops
                await job.flush()
            raise
        await job.flush()
        return outcome

    async def _begin(self, run: Run) -> Begun:
        """From here on the stream takes events under this lease only."""
        item = run.item
        caller = system_caller(item.organization_id, item.user_id, request_id=item.payload["request_id"])
        running = events.state_changed(ExecutionState.RUNNING, run.attempt, *_untold(run))
        async with self._services.database.system() as tx:
            # The item is locked before the stream, as everybody does it.
            stored = await attempt_store.begin(tx, item.organization_id, item.item_id, run.lease_token)
            if stored is None:
                raise LeaseLost(f"item {item.item_id} is run by somebody else")
            await self._services.log.hand_over(tx, item.organization_id, {item.item_id: running}, run.lease_token)
        return Begun(run, stored, caller)

    async def _payload(self, begun: Begun) -> tuple[BaseModel, Mask]:
        """The payload, filled in now if it was not at the submission, and a mask of its secrets.

        Raises InvalidArgument, PermissionDenied, and what else the kind says to whom it is for now.
        """
        stored, item = begun.stored, begun.run.item
        if stored.owner_disabled:
            raise disabled(begun.caller)
        if self._services.kinds.is_guarded(self._kind.name):
            # What its owner may do can have changed since it was submitted.
            owner = await owner_of(self._services.database, begun.caller)
            self._services.kinds.admit(owner, self._kind.name, stored.payload)
        if stored.template and stored.task_id is not None:
            stored = await self._filled(begun, stored, stored.task_id)
            async with self._services.database.system() as tx:
                await leases.hold(tx, begun.run)
                await attempt_store.set_rendered(tx, item.organization_id, item.item_id, stored.payload)
        payload = self._services.kinds.parse(self._kind.name, join(stored.payload, stored.secrets), "payload")
        return payload, mask_of(stored.secrets)

    async def _filled(self, begun: Begun, stored: Stored, task_id: str) -> Stored:
        """What was submitted by no caller, filled in with what it was submitted with, whatever its task is now.

        Raises InvalidArgument.
        """
        if fault := begun.run.item.payload.get(FAULT):
            raise InvalidArgument(Reason.INVALID_FIELD, fault)
        unfilled = Unfilled(self._kind.name, task_id, stored.payload, stored.secrets, stored.scheduled_for)
        return replace(stored, payload=await self._services.filling.fill_in(unfilled, stored.variables))

    async def _attempt(self, run: Run, job: RunningJob) -> Outcome:
        """Run the kind; when somebody cancels, end it at once."""
        kind = asyncio.create_task(self._run_kind(job))
        cancelled = asyncio.create_task(run.cancelled.wait())
        try:
            await asyncio.wait((kind, cancelled), return_when=asyncio.FIRST_COMPLETED)
            if not kind.done():
                kind.cancel()
                await asyncio.wait((kind,))
            if kind.cancelled():
                return Cancelled() if run.cancelled.is_set() else _stopped_itself()
            return kind.result()
        finally:
            for task in (kind, cancelled):
                task.cancel()
            await asyncio.gather(kind, cancelled, return_exceptions=True)

    async def _run_kind(self, job: RunningJob) -> Outcome:
        try:
            return _succeeded(await self._kind.run(job))
        except Later as later:
            return Released(datetime.now(UTC) + later.delay)
        except KindFailed as error:
            return Failed(error.message, error.retryable, error.reason, error.retry_after)
        except StationmasterError as error:
            wait = error.retry_after if isinstance(error, Unavailable) else None
            return Failed(error.message, not is_final(error), error.reason, wait)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - it is logged, without secrets
            trace = job.mask.text(traceback.format_exc())
            logger.error("execution %s of kind %s failed\n%s", job.execution_id, self._kind.name, trace)
            return Failed(f"{type(error).__name__}: {error}", reason=type(error).__name__)

    async def _requeued(self, run: Run, tx: Transaction, decision: Decision) -> None:
        """Tell with the change of state; until somebody begins again, nobody writes.

        What nobody was told of as begun is not told of as handed back.
        """
        item = run.item
        if decision.refund and not await attempt_store.has_begun(
            tx, item.organization_id, item.item_id, run.lease_token
        ):
            return
        again = events.queued_again(run.attempt, decision)
        await self._services.log.hand_over(tx, item.organization_id, {item.item_id: again}, None)


def _untold(run: Run) -> tuple[str, ...]:
    """Why the attempt before this one ended, when no worker was there to tell."""
    last = run.item.errors[-1] if run.item.errors else {}
    if last.get("reason") in _ENDED_BY_OTHERS and last["attempt"] == run.attempt - 1:
        return str(last["reason"]), str(last["error"])
    return ()


def _stopped_itself() -> Failed:
    return Failed("the kind was cancelled, and not by its worker", reason="CANCELLED_ITSELF")


def _masked(outcome: Outcome, mask: Mask) -> Outcome:
    """Without the secrets of the payload, whatever the kind wrote."""
    match outcome:
        case Succeeded(dict() as result):
            return Succeeded(mask.value(result))
        case Failed():
            return replace(outcome, error=mask.text(outcome.error))
        case _:
            return outcome


def _succeeded(done: object) -> Outcome:
    if not isinstance(done, Done):
        return Failed(f"the kind answered {type(done).__name__} instead of Done", False, "BAD_RESULT")
    try:
        json.dumps(dict(done.result), allow_nan=False)
        size = len(to_json(dict(done.result)))  # what writes it refuses half a surrogate pair, too
    except (TypeError, ValueError, RecursionError) as error:
        return Failed(f"the result is no JSON that can be stored: {error}", False, "BAD_RESULT")
    if size > MAX_BYTES:
        return Failed(f"the result has {size} bytes; {MAX_BYTES} are allowed", False, "RESULT_TOO_LARGE")
    return Succeeded(dict(done.result))
