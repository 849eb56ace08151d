"""Tasks and dependencies, kept in step in each target by a service of its own: one that is away holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Any

from pydantic import Field

from stationmaster_server.db.caller import Caller
from stationmaster_server.db.engine import Database
from stationmaster_server.maintenance.base import BackgroundService, NotYet, Operation, Options
from stationmaster_server.maintenance.model import Policy, Scope
from stationmaster_server.tasks.model import task_name
from stationmaster_server.tasks.sync import changed, check_store, store
from stationmaster_server.tasks.sync.engine import Sync
from stationmaster_server.tasks.sync.model import Key
from stationmaster_server.tasks.sync.target import TargetAway, TargetHeld

KEEP_DAYS = 7
_MOST_TOLD = 100
_WORK_SECONDS = 20.0
"""Of an operation at a time, so that it does not keep others from their turns."""
_FOR_THE_HOLDER = timedelta(minutes=10)


class SyncOptions(Options):
    """What a sync can be told."""

    batch_size: Annotated[int, Field(ge=1, le=5000, description="Changes that go to the target at once, at most")] = 200


class TaskSync(BackgroundService[SyncOptions]):
    """Brings one target to where the tasks are."""

    options = SyncOptions
    time_limit = timedelta(hours=1)

    def __init__(self, service_id: str, description: str, database: Database, sync: Sync, *, ours: bool) -> None:
        """`ours`: the target is in this database, where one server is enough; else each server has its own."""
        self.service_id = service_id
        self.description = description
        self.scope = Scope.ONE_SERVER if ours else Scope.EVERY_SERVER
        self.policy = Policy(timedelta(seconds=10 if ours else 2), alert_run_time=timedelta(minutes=30))
        self.channel = None if ours else changed.CHANNEL
        self._database = database
        self._sync = sync

    async def configure(self, options: SyncOptions) -> None:
        """Take so many at once."""
        self._sync.batch_size = options.batch_size

    async def update(self) -> None:
        """Apply what changed, and check the target for those who cannot."""
        await self._sync.run()
        if self.scope is Scope.EVERY_SERVER:
            await self._answer()

    async def cleanup(self) -> None:
        """Close the target; the next run opens it anew."""
        await self._sync.close()

    def operations(self) -> tuple[Operation[Any], ...]:
        """From nothing; and whether all is as it should be."""
        resync = "Fill the target from nothing, on every server that has one; ends when all that are there are filled."
        check = "Compare the target with the tasks; what changes meanwhile may be told as a difference."
        return (
            Operation("resync", resync, Options, self._resync, for_operators=True),
            Operation("check", check, Options, self._check, for_operators=True),
        )

    async def _resync(self, caller: Caller, _arguments: Options) -> Mapping[str, Any]:
        async with self._database.system() as tx:
            if await store.next_generation(tx, self.service_id, asked_by=caller.request_id):
                await store.announce(tx)
        with suppress(TimeoutError):
            async with asyncio.timeout(_WORK_SECONDS):
                await self._sync.run()  # which the service goes on with
        async with self._database.system(autocommit=True) as tx:
            now = await store.filling(tx, self.service_id, in_database=self.scope is Scope.ONE_SERVER)
        if now.awaited or (now.just_asked and not now.filled):
            raise NotYet(f"targets are being filled: {', '.join(now.awaited) or 'none so far'}")
        if not now.filled:
            raise TargetAway(
                f"nobody fills a target of {self.service_id}, which was at {', '.join(now.away) or 'no place so far'}:"
                " look whether the service runs (services show), and resume it, or start the server that had it"
            )
        return {"generation": now.generation, "filled": now.filled, "not_filled": now.away}

    async def _check(self, caller: Caller, _arguments: Options) -> Mapping[str, Any]:
        try:
            return await self._found()
        except TargetHeld as error:
            async with self._database.system() as tx:
                found = await check_store.ask(tx, self.service_id, self._sync.target.place, caller.request_id)
                await store.announce(tx)
            if found is None:
                text = f"{error}; it did not: look whether its service runs (services show)"
                raise NotYet(text, give_up_after=_FOR_THE_HOLDER) from error
            return found

    async def _answer(self) -> None:
        place = self._sync.target.place
        async with self._database.system(autocommit=True) as tx:
            askers = await check_store.asked(tx, self.service_id, place)
        if askers:
            with suppress(TargetHeld):  # whoever has it answers
                found = await self._found()
                async with self._database.system(autocommit=True) as tx:
                    await check_store.answer(tx, self.service_id, place, askers, found)

    async def _found(self) -> Mapping[str, Any]:
        found = await self._sync.differences()
        skipped = await self._sync.target.skipped()
        some = [{"task": _named(key), "why": why} for key, why in sorted(skipped.items())[:_MOST_TOLD]]
        return {
            "place": self._sync.target.place,
            "differences": len(found),
            "tasks": [_named(key) for key in found[:_MOST_TOLD]],
            "skipped": len(skipped),
            "skipped_tasks": some,
        }


def _named(key: Key) -> str:
    return f"{key.organization_id}/{task_name(key.task_id)}"
