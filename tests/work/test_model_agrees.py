"""Property: whatever is interleaved with whatever, the tables agree with a model of forty lines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.work import claim_store
from stationmaster_server.work.claim_store import Beat, Settlement
from stationmaster_server.work.model import (
    FINAL,
    HOLDS_SLOT,
    Failed,
    NewWork,
    Outcome,
    Released,
    RetryPolicy,
    State,
    Succeeded,
    Suspended,
    WorkItem,
    may_become,
)
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue, settle_all
from stationmaster_server.work.reaper import Reaper
from stationmaster_server.work.retry import decide

ATTEMPTS = 2
LEASE = timedelta(hours=1)
OUTCOMES: list[Outcome] = [Succeeded(), Failed("broken", retry_after=timedelta(0)), Released(), Suspended()]
ITEMS = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from([None, "a", "b"])),
        st.tuples(st.just("claim"), st.integers(1, 3)),
        st.tuples(st.just("beat"), ITEMS),
        st.tuples(st.just("stale beat"), ITEMS),
        st.tuples(st.just("finish"), st.tuples(ITEMS, st.sampled_from(OUTCOMES))),
        st.tuples(st.just("stale finish"), ITEMS),
        st.tuples(st.just("expire"), ITEMS),
        st.tuples(st.just("cancel"), ITEMS),
        st.tuples(st.just("resume"), ITEMS),
        st.tuples(st.just("retry"), ITEMS),
    ),
    min_size=5,
    max_size=40,
)


class Twin:
    """An item as the model sees it."""

    def __init__(self, item: WorkItem) -> None:
        self.id = item.item_id
        self.key = item.concurrency_key
        self.state = item.state
        self.attempt = 0
        self.token: UUID | None = None
        self.stale: list[UUID] = []
        self.cancel = self.resume = False

    def become(self, state: State) -> None:
        assert may_become(self.state, state), (self.state, state)
        self.state = state


class World:
    """The tables and the model, moved by the same steps."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.queue = WorkQueue(Notifier(database))
        self.reaper = Reaper(database, lambda: None, timedelta(hours=1), timedelta(hours=1))
        self.organization_id, self.user_id = new_id(), new_id()
        self.twins: list[Twin] = []

    async def step(self, name: str, argument: object) -> None:
        method: Callable[..., Awaitable[None]] = getattr(self, name.replace(" ", "_"))
        if name in ("submit", "claim"):
            await method(argument)
            return
        index, *rest = argument if isinstance(argument, tuple) else (argument,)
        if self.twins:
            await method(self.twins[index % len(self.twins)], *rest)

    async def submit(self, key: str | None) -> None:
        policy = RetryPolicy(attempts=ATTEMPTS, initial=timedelta(0), jitter=0.0)
        work = NewWork(self.organization_id, self.user_id, "noop", new_id(), concurrency_key=key, retry=policy)
        async with self.database.system() as tx:
            item = await self.queue.submit(tx, work)
        free = key is None or not any(twin.key == key and twin.state in HOLDS_SLOT for twin in self.twins)
        assert item.state is (State.QUEUED if free else State.WAITING)
        self.twins.append(Twin(item))

    async def claim(self, limit: int) -> None:
        async with self.database.system(autocommit=True) as tx:
            claimed = await claim_store.claim(tx, ["noop"], limit, LEASE, "test", LEASE)
        queued = [twin for twin in self.twins if twin.state is State.QUEUED]
        assert len(claimed) == min(limit, len(queued))
        for item in claimed:
            twin = next(twin for twin in queued if twin.id == item.item_id)
            twin.become(State.RUNNING)
            twin.attempt += 1
            twin.resume = False
            assert item.attempt == twin.attempt
            assert item.lease_token not in (None, twin.token, *twin.stale)
            twin.stale += [twin.token] if twin.token else []
            twin.token = item.lease_token

    async def beat(self, twin: Twin) -> None:
        await self._beat(twin, twin.token, twin.state is State.RUNNING)

    async def stale_beat(self, twin: Twin) -> None:
        if twin.stale:
            await self._beat(twin, twin.stale[-1], False)

    async def _beat(self, twin: Twin, token: UUID | None, held: bool) -> None:
        if token is None:
            return
        beat = Beat(self.organization_id, twin.id, token, renew=True, alive=True, progress='{"n":1}')
        async with self.database.system(autocommit=True) as tx:
            (seen,) = await claim_store.beat(tx, [beat], LEASE)
        assert seen.held is held
        assert seen.cancel_requested is twin.cancel

    async def finish(self, twin: Twin, outcome: Outcome) -> None:
        settled = await self._settle(twin, twin.token, outcome)
        assert (settled is not None) is (twin.state is State.RUNNING and twin.token is not None)
        if settled is not None:
            self._after(twin, outcome)
            assert settled is twin.state
            self._admit(twin)

    async def stale_finish(self, twin: Twin) -> None:
        if twin.stale:
            assert await self._settle(twin, twin.stale[-1], Succeeded({"by": "stale"})) is None

    async def _settle(self, twin: Twin, token: UUID | None, outcome: Outcome) -> State | None:
        policy = RetryPolicy(attempts=ATTEMPTS, initial=timedelta(0), jitter=0.0)
        decision = decide(outcome, twin.attempt, policy)
        async with self.database.system() as tx:
            states, _ = await settle_all(tx, [Settlement(self.organization_id, twin.id, token, twin.key, decision)])
        return states.get(twin.id)

    def _after(self, twin: Twin, outcome: Outcome) -> None:
        match outcome:
            case Succeeded():
                state = State.SUCCEEDED
            case Failed():
                state = State.QUEUED if twin.attempt < ATTEMPTS else State.DEAD
            case Suspended():
                state = State.QUEUED if twin.resume else State.SUSPENDED
            case _:
                state = State.QUEUED
        if isinstance(outcome, Released | Suspended):
            twin.attempt -= 1
        if twin.cancel and state in (State.QUEUED, State.SUSPENDED):
            state = State.CANCELLED
        twin.become(state)

    def _admit(self, freed: Twin) -> None:
        """The oldest that waits for the slot gets it."""
        if freed.key is None or any(twin.key == freed.key and twin.state in HOLDS_SLOT for twin in self.twins):
            return
        for twin in self.twins:
            if twin.key == freed.key and twin.state is State.WAITING:
                twin.become(State.QUEUED)
                return

    async def expire(self, twin: Twin) -> None:
        sql = "UPDATE work_items SET lease_expires_at = now() - interval '1 s' WHERE item_id = $1 AND state = 'RUNNING'"
        async with self.database.system() as tx:
            await tx.execute(sql, twin.id)
        running = twin.state is State.RUNNING
        assert await self.reaper.reap() == (1 if running else 0)
        if running:
            self._after(twin, Failed("lease expired"))
            self._admit(twin)

    async def cancel(self, twin: Twin) -> None:
        async with self.database.system() as tx:
            item = await self.queue.cancel(tx, self.organization_id, twin.id)
        if twin.state not in FINAL:
            twin.cancel = True
            if twin.state is not State.RUNNING:
                twin.become(State.CANCELLED)
                self._admit(twin)
        assert item.state is twin.state

    async def resume(self, twin: Twin) -> None:
        if twin.state in FINAL:
            return
        async with self.database.system() as tx:
            await self.queue.resume(tx, self.organization_id, twin.id)
        if twin.state is State.SUSPENDED:
            twin.become(State.QUEUED)
            twin.resume = False
        elif twin.state is State.RUNNING:
            twin.resume = True

    async def retry(self, twin: Twin) -> None:
        if twin.state is not State.DEAD:
            return
        async with self.database.system() as tx:
            await self.queue.retry(tx, self.organization_id, twin.id)
        twin.become(State.QUEUED if twin.key is None else State.WAITING)
        twin.attempt, twin.cancel, twin.resume = 0, False, False
        self._admit(twin)

    async def check(self) -> None:
        """Both say the same of every item, and no key has given more slots than it has."""
        async with self.database.system(autocommit=True) as tx:
            rows = await tx.fetch(
                "SELECT item_id, state, attempt, lease_token FROM work_items WHERE organization_id = $1",
                self.organization_id,
            )
        stored = {row["item_id"]: (State(row["state"]), row["attempt"], row["lease_token"]) for row in rows}
        assert stored == {twin.id: (twin.state, twin.attempt, twin.token) for twin in self.twins}
        for key in ("a", "b"):
            assert sum(twin.key == key and twin.state in HOLDS_SLOT for twin in self.twins) <= 1


@given(steps=STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_interleaving_leaves_what_the_model_says(database_url: str, steps: list[tuple[str, object]]) -> None:
    asyncio.run(_play(database_url, steps))


async def _play(url: str, steps: list[tuple[str, object]]) -> None:
    database = await Database.connect(url, pool_size=1, system_pool_size=2, connect_timeout=timedelta(seconds=10))
    try:
        async with database.system() as tx:
            await tx.execute("DELETE FROM work_items")
            await tx.execute("DELETE FROM work_lanes")
        world = World(database)
        for name, argument in steps:
            await world.step(name, argument)
            await world.check()
    finally:
        await database.close()


@pytest.mark.long
@given(steps=STEPS.filter(lambda steps: len(steps) > 20))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_more_interleavings_leave_what_the_model_says(database_url: str, steps: list[tuple[str, object]]) -> None:
    asyncio.run(_play(database_url, steps))
