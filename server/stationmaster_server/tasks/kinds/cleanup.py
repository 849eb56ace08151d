"""The kind `cleanup`: deletes what is old, of the whole organization. For administrators."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from stationmaster_server.db.caller import Caller
from stationmaster_server.events.log import EventLog
from stationmaster_server.identity.roles import require_administrator
from stationmaster_server.tasks.cleanup.cleaner import Cleaner, Target
from stationmaster_server.tasks.cleanup.forgetting import Tools
from stationmaster_server.tasks.kinds.base import Done, Job, Payload
from stationmaster_server.tasks.owners import owner_of

_WHAT = "clean an organization up"


class CleanupPayload(Payload):
    """What is deleted once it is how old."""

    targets: Annotated[tuple[Target, ...], Field(min_length=1, max_length=4)]
    """`executions` that ended, with their events, reports, pages and files; `workspaces` of sessions that ended;
    `deltas` of such sessions, whose messages stay; `request_ids` that have expired.
    """
    older_than_days: Annotated[float, Field(ge=1, le=36_500)]
    """Since their end. `request_ids` expire after a day, whatever this says."""
    dry_run: bool = True
    """Only count what would be deleted."""


class CleanupKind:
    """Cleans up in batches; an attempt after a crash goes on with what is left."""

    name: ClassVar[str] = "cleanup"
    payload: ClassVar[type[BaseModel]] = CleanupPayload

    def __init__(self, tools: Tools, log: EventLog) -> None:
        self._tools = tools
        self._log = log

    def admit(self, caller: Caller, payload: Mapping[str, Any]) -> None:
        """Raise PermissionDenied(ROLE_INSUFFICIENT) unless the caller administers the organization."""
        require_administrator(caller, _WHAT)

    async def run(self, job: Job[CleanupPayload]) -> Done:
        """Clean up. Raises PermissionDenied when the owner administers nothing any more."""
        payload = job.payload
        require_administrator(await owner_of(self._tools.database, job.caller), _WHAT)
        state = job.checkpoint or {}
        before = datetime.fromisoformat(state["before"]) if "before" in state else _ago(payload.older_than_days)
        cleaner = Cleaner(self._tools, self._log, job.caller, before, state.get("counts", {}), lambda: tell())

        def tell() -> None:
            job.progress(None, "would be deleted" if payload.dry_run else "deleted", cleaner.counts)

        for target in dict.fromkeys(payload.targets):
            if payload.dry_run:
                await cleaner.count(target)
                continue
            async with aclosing(cleaner.clean(target)) as steps:
                async for _ in steps:
                    await job.save({"before": before.isoformat(), "counts": dict(cleaner.counts)})
        return Done({"dry_run": payload.dry_run, "before": before.isoformat(), "counts": dict(cleaner.counts)})


def _ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)
