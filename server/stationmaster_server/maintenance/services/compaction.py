"""Streams, kept small: the deltas of turns that ended some time ago go, the messages that stand for them stay."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from stationmaster_server.db.caller import Caller
from stationmaster_server.maintenance.base import BackgroundService, Operation, Options
from stationmaster_server.maintenance.model import Policy, Scope
from stationmaster_server.sessions.compaction import Compaction


class CompactionOptions(Options):
    """What event-compaction can be told."""

    after_hours: Annotated[
        float, Field(ge=0, le=87_600, description="Turns that ended so many hours ago lose their deltas")
    ] = 24.0


class EventCompaction(BackgroundService[CompactionOptions]):
    """Deletes deltas that a message stands for."""

    service_id = "event-compaction"
    description = "Deletes the deltas of turns that ended some time ago, for which their messages stand."
    policy = Policy(timedelta(minutes=10))
    scope = Scope.ONE_SERVER
    options = CompactionOptions

    def __init__(self, compaction: Compaction) -> None:
        self._compaction = compaction
        self._after = timedelta(hours=CompactionOptions().after_hours)

    async def configure(self, options: CompactionOptions) -> None:
        """Take turns of that age."""
        self._after = timedelta(hours=options.after_hours)

    async def update(self) -> None:
        """Compact what is old enough."""
        await self._compaction.compact(self._after)

    def operations(self) -> tuple[Operation[Any], ...]:
        """All turns that have ended, or those that did so long ago."""
        what = "Compact the turns of all organizations that ended longer ago than `after_hours`."
        return (Operation("compact", what, CompactionOptions, self._compact, for_operators=True),)

    async def _compact(self, _caller: Caller, arguments: CompactionOptions) -> Mapping[str, Any]:
        done = await self._compaction.compact(timedelta(hours=arguments.after_hours))
        return {"turns": done.turns, "deltas": done.deltas}
