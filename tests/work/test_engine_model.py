"""Property: whatever is done in whatever order, the tables agree with a model that has neither locks nor a clock."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.errors import AlreadyExists, FailedPrecondition, LeaseLost
from stationmaster_server.work import claim_store, key_store, store
from stationmaster_server.work.claim_store import Beat, Seen, Settlement
from stationmaster_server.work.model import (
    NewWork,
    OnConflict,
    Outcome,
    QueueStats,
    Released,
    State,
    Succeeded,
    WorkItem,
)
from stationmaster_server.work.notifier import Notifier
from stationmaster_server.work.queue import WorkQueue, settle_all
from stationmaster_server.work.reaper import Reaper
from stationmaster_server.work.retention import forget_ended
from stationmaster_server.work.retry import decide
from stationmaster_server.work.run import Run

from tests.work.engine_inputs import INDEX, KEYS, KINDS, OUTCOMES, REST, HereWorker, span
from tests.work.engine_model import AGEING, LEASE, STEP, Model, Refused, Twin

T = TypeVar("T")


# Time passes for the tables as if the database's clock had been moved: whatever they remember is longer ago.
TIMESTAMPS = {
    "work_items": (
        *("idempotency_expires_at", "rate_slot", "run_at", "start_deadline", "close_deadline", "lease_expires_at"),
        *("attempt_deadline", "heartbeat_deadline", "created_at", "started_at", "finished_at"),
    ),
    "work_lanes": ("served_at", "used_at"),
    "work_keys": ("used_at",),
}
PASS = [
    f"UPDATE {table} SET " + ", ".join(f"{column} = {column} - $1::interval" for column in columns)
    for table, columns in TIMESTAMPS.items()
]


class Kitchen(RuleBasedStateMachine):
    """The engine and the model, moved by the same steps."""

    runner: asyncio.Runner
    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.worker = HereWorker()
        self.queue = WorkQueue(Notifier(self.database))
        self.queue.attach(self.worker)
        self.reaper = Reaper(self.database, lambda: None, timedelta(days=1), timedelta(days=1))
        self.organization_id = new_id()
        self.runs: dict[UUID, WorkItem] = {}
        self.call(self._clear)

    async def _clear(self, tx: Transaction) -> None:
        for table in TIMESTAMPS:
            await tx.execute(f"DELETE FROM {table}")

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """A step of the engine. It is one of the model's too."""
        self.model.now += STEP
        return self.runner.run(coroutine)

    def call(self, method: Callable[..., Awaitable[T]], *arguments: Any, **named: Any) -> T:
        """A method of the queue in a transaction of its own."""

        async def in_transaction() -> T:
            async with self.database.system() as tx:
                return await method(tx, *arguments, **named)

        return self.run(in_transaction())

    def both(self, engine: Callable[[], T], model: Callable[[T | None], object]) -> None:
        """Both do it, or both refuse it for the same reason. The model, which goes second, sees the engine's answer."""
        answer, refused, expected = None, "", ""
        try:
            answer = engine()
        except (AlreadyExists, FailedPrecondition, LeaseLost) as error:
            refused = type(error).__name__
        try:
            model(answer)
        except Refused as error:
            expected = str(error)
        assert refused == expected

    def pick(self, index: int, *states: State) -> Twin:
        """An item in one of the states."""
        twins = self.model.of(*states)
        return twins[index % len(twins)]

    # Submitting.

    @rule(rest=REST, keys=KEYS, later=st.booleans(), here=st.booleans())
    def submit(self, rest: dict[str, Any], keys: dict[str, Any], later: bool, here: bool) -> None:
        self._submit(self._new(rest, keys, run_at=datetime.now(UTC) + span(1) if later else None), here)

    @precondition(lambda self: self.model.twins)
    @rule(rest=REST, keys=KEYS, here=st.booleans(), conflict=st.sampled_from(OnConflict), index=INDEX)
    def submit_with_an_id_that_is_taken(
        self, rest: dict[str, Any], keys: dict[str, Any], here: bool, conflict: OnConflict, index: int
    ) -> None:
        taken = self.pick(index, *State).id
        self._submit(self._new(rest, keys, item_id=taken, on_conflict=conflict), here)

    def _new(self, rest: dict[str, Any], keys: dict[str, Any], **fields: Any) -> NewWork:
        return NewWork(self.organization_id, subject_id=new_id(), **rest, **keys, **fields)

    def _submit(self, work: NewWork, here: bool) -> None:
        leases, taken = len(self.worker.leases), len(self.worker.taken)

        def model(item: WorkItem | None) -> None:
            lease = self.worker.leases[leases] if here and work.run_at is None and not work.paused else None
            before = set(map(id, self.model.twins.values()))
            item_id = work.item_id or (item.item_id if item else new_id())
            twin = self.model.submit(work, item_id, lease.token if lease else None)
            assert item is not None
            assert (item.item_id, item.state) == (twin.id, twin.state)
            starts = lease is not None and id(twin) not in before and twin.state is State.RUNNING
            assert [one.item_id for one in self.worker.taken[taken:]] == ([twin.id] if starts else [])
            if starts:
                self.runs[twin.id] = item
            elif lease is not None:
                assert lease in self.worker.given_back

        self.both(lambda: self.call(self.queue.submit, work, claim_here=here), model)

    @rule(many=st.lists(st.tuples(REST, KEYS), min_size=2, max_size=4))
    def submit_many(self, many: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
        due = [datetime.now(UTC) + span(1) + timedelta(milliseconds=n) for n in range(len(many))]
        works = [self._new(rest, keys, run_at=at) for (rest, keys), at in zip(many, due, strict=True)]
        items = self.call(self.queue.submit_many, works)
        for n, (work, item) in enumerate(zip(works, items, strict=True)):
            twin = self.model.submit(work, item.item_id, spread=n)
            assert (item.item_id, item.state) == (twin.id, twin.state)

    # Working.

    @rule(kinds=st.sampled_from([KINDS, KINDS[:1], KINDS[1:]]), limit=st.integers(1, 4))
    def claim(self, kinds: tuple[str, ...], limit: int) -> None:
        items = self.call(claim_store.claim, list(kinds), limit, AGEING, "there", LEASE)
        twins = self.model.claimable(kinds, limit)
        assert {item.item_id for item in items} == {twin.id for twin in twins}
        for item in items:
            twin = self.model.twins[item.item_id]
            assert item.lease_token not in (None, twin.token, *twin.stale)
            self.model.claim(twin, item.lease_token or new_id())
            assert (item.attempt, item.priority, item.kind) == (twin.attempt, twin.work.priority, twin.work.kind)
            self.runs[twin.id] = item

    @precondition(lambda self: self.model.of(State.RUNNING))
    @rule(index=INDEX, alive=st.booleans())
    def beat(self, index: int, alive: bool) -> None:
        twin = self.pick(index, State.RUNNING)
        assert self._beat(twin, twin.token, alive) == Seen(True, True, twin.cancel, twin.paused)
        self.model.beat(twin, alive)

    @precondition(lambda self: self.with_stale_tokens())
    @rule(index=INDEX)
    def beat_under_a_lost_lease(self, index: int) -> None:
        twins = self.with_stale_tokens()
        twin = twins[index % len(twins)]
        assert self._beat(twin, twin.stale[-1], True) == Seen(False, False, twin.cancel, twin.paused)

    def _beat(self, twin: Twin, token: UUID | None, alive: bool) -> Seen:
        assert token is not None
        beat = Beat(self.organization_id, twin.id, token, renew=True, alive=alive, progress='{"n":1}')
        (seen,) = self.call(claim_store.beat, [beat], LEASE)
        return seen

    @precondition(lambda self: self.model.of(State.RUNNING))
    @rule(index=INDEX, outcome=OUTCOMES, by_handler=st.booleans(), later=st.booleans())
    def end(self, index: int, outcome: Outcome, by_handler: bool, later: bool) -> None:
        twin = self.pick(index, State.RUNNING)
        if later and isinstance(outcome, Released):
            outcome = Released(datetime.now(UTC) + span(1))
        state = self._end(twin, self.runs[twin.id], outcome, by_handler)
        self.model.end(twin, outcome)
        assert state is twin.state

    @precondition(lambda self: self.with_stale_tokens())
    @rule(index=INDEX, by_handler=st.booleans())
    def end_under_a_lost_lease(self, index: int, by_handler: bool) -> None:
        twins = self.with_stale_tokens()
        twin = twins[index % len(twins)]
        lost = replace(self.runs[twin.id], lease_token=twin.stale[-1])
        assert self._end(twin, lost, Succeeded({"by": "nobody"}), by_handler) is None

    def _end(self, twin: Twin, item: WorkItem, outcome: Outcome, by_handler: bool) -> State | None:
        """By the handler in a transaction of its own, or by the completer."""
        if by_handler:
            try:
                return self.call(self.queue.complete, Run(item, asyncio.Event(), 0.0), outcome)
            except LeaseLost:
                return None
        decision = decide(outcome, item.attempt, item.retry)
        ending = Settlement(self.organization_id, twin.id, item.lease_token, item.concurrency_key, decision)
        return self.call(settle_all, [ending]).states.get(twin.id)

    def with_stale_tokens(self) -> list[Twin]:
        """Items of which somebody may still think that he runs them."""
        return [twin for twin in self.model.twins.values() if twin.stale and twin.id in self.runs]

    # Time.

    @rule(whole=st.sampled_from([1, 1, 3]))
    def time_passes(self, whole: int) -> None:
        async def move(tx: Transaction) -> None:
            for sql in PASS:
                await tx.execute(sql, timedelta(hours=whole))

        self.call(move)
        self.model.now += whole

    @rule()
    def reap(self) -> None:
        assert self.run(self.reaper.reap()) == self.model.reap()

    @rule()
    def let_in(self) -> None:
        self.run(self.reaper.let_in())
        self.model.let_in()

    @rule()
    def keep_house(self) -> None:
        self.run(self.reaper.keep_house())
        self.model.keep_house()

    @rule(whole=st.integers(0, 2))
    def forget(self, whole: int) -> None:
        self.call(forget_ended, span(whole))
        self.model.forget(span(whole))

    # What people do.

    @precondition(lambda self: self.model.twins)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        twin = self.pick(index, *State)
        item = self.call(self.queue.cancel, self.organization_id, twin.id)
        self.model.cancel(twin)
        assert item.state is twin.state

    @precondition(lambda self: self.model.twins)
    @rule(index=INDEX)
    def pause(self, index: int) -> None:
        twin = self.pick(index, *State)
        pause = self.queue.unpause if twin.paused else self.queue.pause
        self.both(
            lambda: self.call(pause, self.organization_id, twin.id), lambda _: self.model.pause(twin, not twin.paused)
        )

    @precondition(lambda self: self.model.twins)
    @rule(index=INDEX, sleeping=st.booleans())
    def resume(self, index: int, sleeping: bool) -> None:
        """Mostly of one that is, or is about to be, suspended."""
        wanted = (
            (State.SUSPENDED, State.RUNNING) if sleeping and self.model.of(State.SUSPENDED, State.RUNNING) else State
        )
        twin = self.pick(index, *wanted)
        self.both(
            lambda: self.call(self.queue.resume, self.organization_id, twin.id), lambda _: self.model.resume(twin)
        )

    @precondition(lambda self: self.model.twins)
    @rule(index=INDEX, dead=st.booleans())
    def retry(self, index: int, dead: bool) -> None:
        """Mostly of a dead one."""
        twin = self.pick(index, *([State.DEAD] if dead and self.model.of(State.DEAD) else State))
        self.both(lambda: self.call(self.queue.retry, self.organization_id, twin.id), lambda _: self.model.retry(twin))

    @rule(limit=st.integers(1, 3))
    def retry_many(self, limit: int) -> None:
        twins = self.dead()[:limit]
        retried = self.call(self.queue.retry_many, self.organization_id, [twin.id for twin in twins])
        self.model.retry(*twins)
        assert set(retried) == {twin.id for twin in twins}

    def dead(self) -> list[Twin]:
        """The dead, the newest first."""
        return sorted(self.model.of(State.DEAD), key=lambda twin: (twin.finished_at, twin.id), reverse=True)

    # What always holds.

    @invariant()
    def they_agree(self) -> None:
        rows, stalled, dead, stats = self.run(self._stored())
        assert dict(map(_of_row, rows)) == {twin.id: _of_twin(twin) for twin in self.model.twins.values()}
        assert stalled == [], "a slot is left to nobody"
        assert not self.model.slots_unused()
        assert [item.item_id for item in dead] == [twin.id for twin in self.dead()]
        kept = [*self.model.live(), *self.model.of(State.DEAD)]
        counted = {(one.kind, one.state): one.count for one in stats}
        assert counted == Counter((twin.work.kind, twin.state) for twin in kept)

    async def _stored(self) -> tuple[list[Any], list[key_store.Key], list[WorkItem], list[QueueStats]]:
        async with self.database.system(autocommit=True) as tx:
            return (
                await tx.fetch("SELECT * FROM work_items"),
                await key_store.with_unused_slots(tx),
                await store.list_dead(tx, self.organization_id),
                await store.stats(tx, self.organization_id),
            )


def _of_row(row: Any) -> tuple[UUID, tuple[object, ...]]:
    errors = [(error["attempt"], error["reason"]) for error in row["errors"]]
    columns = ("state", "reason", "attempt", "lease_token", "paused", "cancel_requested")
    deferred = row["deferred"] is not None
    return row["item_id"], (*(row[column] for column in columns), deferred, errors)


def _of_twin(twin: Twin) -> tuple[object, ...]:
    return twin.state.value, twin.reason, twin.attempt, twin.token, twin.paused, twin.cancel, twin.deferred, twin.errors


def play(url: str, examples: int, steps: int) -> None:
    """Run the machine on a database; every example begins with empty tables."""
    with asyncio.Runner() as runner:
        limit = timedelta(seconds=30)
        database = runner.run(Database.connect(url, pool_size=1, system_pool_size=2, connect_timeout=limit))
        try:
            made = type("Kitchen", (Kitchen,), {"runner": runner, "database": database})
            run_state_machine_as_test(
                made,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(database.close())


@pytest.mark.timeout(900)  # on a machine that does much else
def test_every_interleaving_leaves_what_the_model_says(database_url: str) -> None:
    play(database_url, examples=40, steps=40)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_more_interleavings_leave_what_the_model_says(database_url: str) -> None:
    play(database_url, examples=1000, steps=60)
