"""The worker's side of executions: begins an attempt under the lease, runs the kind, tells how it ended."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from stationmaster_server.errors import (
    InvalidArgument,
    LeaseLost,
    NotFound,
    PermissionDenied,
    StationmasterError,
    Unavailable,
)
from stationmaster_server.identity.system import system_caller
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.tasks import events, execution_store, store
from stationmaster_server.tasks.execution_store import Stored
from stationmaster_server.tasks.follow_up import FollowUp
from stationmaster_server.tasks.kinds.base import Done, Kind, KindFailed, Later, is_final
from stationmaster_server.tasks.model import ExecutionState, task_name
from stationmaster_server.tasks.owners import owner_of
from stationmaster_server.tasks.running import MAX_BYTES, Begun, RunningJob
from stationmaster_server.tasks.secrets import join, mask_of
from stationmaster_server.tasks.services import TaskServices
from stationmaster_server.work import leases
from stationmaster_server.work.model import Cancelled, Failed, Outcome, Released, State, Succeeded
from stationmaster_server.work.retry import decide
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
        """Run an attempt. Raises LeaseLost: another worker has the execution."""
        run.then = self._follow_up.wake
        begun = await self._begin(run)
        try:
            payload, mask = await self._payload(begun)
        except (InvalidArgument, PermissionDenied) as error:
            return await self._told(run, None, Failed(error.message, retryable=False, reason=error.reason))
        job = RunningJob(self._services, begun, payload, mask)
        outcome = _masked(await self._attempt(run, job), mask)
        return await self._told(run, job, outcome)

    async def _begin(self, run: Run) -> Begun:
        """From here on the stream takes events under this lease only."""
        item = run.item
        caller = system_caller(item.organization_id, item.user_id, request_id=item.payload["request_id"])
        running = events.state_changed(ExecutionState.RUNNING, run.attempt, *_untold(run))
        async with self._services.database.system() as tx:
            # The item is locked before the stream, as everybody does it.
            stored = await execution_store.begin(tx, item.organization_id, item.item_id, run.lease_token)
            if stored is None:
                raise LeaseLost(f"item {item.item_id} is run by somebody else")
            await self._services.log.hand_over(tx, item.organization_id, {item.item_id: running}, run.lease_token)
        return Begun(run, stored, caller)

    async def _payload(self, begun: Begun) -> tuple[BaseModel, Mask]:
        """The payload, filled in now if it was not at the submission, and a mask of its secrets.

        Raises InvalidArgument, PermissionDenied.
        """
        stored, item = begun.stored, begun.run.item
        if stored.template and stored.task_id is not None:
            stored = await self._filled(begun, stored, stored.task_id)
            async with self._services.database.system() as tx:
                await leases.hold(tx, begun.run)
                await execution_store.set_rendered(
                    tx, item.organization_id, item.item_id, stored.payload, stored.variables, stored.secrets
                )
        payload = self._services.kinds.parse(self._kind.name, join(stored.payload, stored.secrets), "payload")
        return payload, mask_of(stored.secrets)

    async def _filled(self, begun: Begun, stored: Stored, task_id: str) -> Stored:
        """What was submitted by no caller, filled in as its task declares.

        Raises PermissionDenied (the task's owner is disabled), InvalidArgument (the task is gone).
        """
        await owner_of(self._services.database, begun.caller)
        try:
            async with self._services.database.tenant(begun.caller.tenant, read=True) as tx:
                task = await store.get(tx, begun.caller.tenant.organization_id, task_id)
        except NotFound:
            task = None
        if task is None or task.uid != stored.task_uid:
            raise InvalidArgument.field("task", f"{task_name(task_id)} was deleted before this execution of it began")
        submitted = replace(task, payload=stored.payload)
        payload, variables = await self._services.filling.fill(submitted, stored.variables, stored.scheduled_for)
        return replace(stored, payload=payload, variables=variables)

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

    async def _told(self, run: Run, job: RunningJob | None, outcome: Outcome) -> Outcome:
        """Everything that was said is durable before the attempt ends; a repeat is announced."""
        if job is not None:
            await job.flush()
        if not isinstance(outcome, Failed):
            return outcome
        decision = decide(outcome, run.attempt, run.item.retry)
        if decision.state is not State.QUEUED:
            return outcome
        wait = timedelta(seconds=decision.delay_seconds)
        again = events.state_changed(
            ExecutionState.QUEUED, run.attempt, outcome.reason, outcome.error, retry_at=datetime.now(UTC) + wait
        )
        item = run.item
        await self._services.log.write(item.organization_id, item.item_id, again, fence=run.lease_token)
        return replace(outcome, retry_after=wait)


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
    size = len(json.dumps(dict(done.result), allow_nan=False))
    if size > MAX_BYTES:
        return Failed(f"the result has {size} bytes; {MAX_BYTES} are allowed", False, "RESULT_TOO_LARGE")
    return Succeeded(dict(done.result))
