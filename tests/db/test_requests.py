"""Request ids: one change for each, and one answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import RequestKey, Tenant
from stationmaster_server.db.requests import claim_many, forget_old, recall, remember, remember_many
from stationmaster_server.errors import InvalidArgument, Reason, Unavailable


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    id: UUID
    made_at: datetime
    colour: Colour = Colour.RED
    pause: timedelta | None = None
    parts: list[Part] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


def a_key(method: str = "Create", fingerprint: bytes = b"body") -> RequestKey:
    return RequestKey(new_id(), method, fingerprint)


class Counter:
    """A service with one mutation, which counts how often it was done."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.done = 0

    async def change(self, tenant: Tenant, key: RequestKey | None, *, fail: bool = False) -> Answer:
        async with self.database.tenant(tenant) as tx:
            known = await recall(tx, tenant, key, Answer)
            if known is not None:
                return known
            self.done += 1
            await tx.execute(
                "UPDATE organizations SET display_name = $2 WHERE organization_id = $1",
                tenant.organization_id,
                str(self.done),
            )
            tx.audited = True
            parts = [Part("ü", (0.1, 2.0))]
            answer = Answer(new_id(), datetime.now(UTC), pause=timedelta(seconds=1.5), parts=parts, labels={"a": "b"})
            await remember(tx, tenant, key, answer)
            if fail:
                raise Unavailable(Reason.DATABASE_UNAVAILABLE, "after the change")
            return answer


@pytest.fixture
def counter(database: Database) -> Counter:
    return Counter(database)


async def test_a_repeat_gets_the_first_answer_and_changes_nothing(counter: Counter, tenant: Tenant) -> None:
    key = a_key()
    first = await counter.change(tenant, key)
    assert await counter.change(tenant, key) == first
    assert counter.done == 1


async def test_without_an_id_every_call_is_a_change(counter: Counter, tenant: Tenant) -> None:
    assert await counter.change(tenant, None) != await counter.change(tenant, None)
    assert counter.done == 2


@pytest.mark.parametrize("other", [{"fingerprint": b"other body"}, {"method": "Delete"}])
async def test_the_same_id_with_another_request_is_refused(
    counter: Counter, tenant: Tenant, other: dict[str, object]
) -> None:
    key = a_key()
    await counter.change(tenant, key)
    changed = RequestKey(
        key.request_id, str(other.get("method", key.method)), bytes(str(other.get("fingerprint", "")), "utf-8")
    )
    with pytest.raises(InvalidArgument) as caught:
        await counter.change(tenant, changed)
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_racing_repeats_make_one_change_and_get_one_answer(counter: Counter, tenant: Tenant) -> None:
    key = a_key()
    answers = await asyncio.gather(*(counter.change(tenant, key) for _ in range(8)))
    assert counter.done == 1
    assert answers == [answers[0]] * 8


async def test_a_change_that_failed_is_done_by_its_repeat(counter: Counter, tenant: Tenant) -> None:
    key = a_key()
    with pytest.raises(Unavailable):
        await counter.change(tenant, key, fail=True)
    await counter.change(tenant, key)
    assert counter.done == 2


async def test_racing_repeats_of_a_change_that_fails_leave_one_change(counter: Counter, tenant: Tenant) -> None:
    key = a_key()
    outcomes = await asyncio.gather(
        counter.change(tenant, key, fail=True), *(counter.change(tenant, key) for _ in range(4)), return_exceptions=True
    )
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    assert answers == [answers[0]] * len(answers)
    assert counter.done <= 2


async def test_another_user_may_have_the_same_id(counter: Counter, tenant: Tenant) -> None:
    key = a_key()
    await counter.change(tenant, key)
    await counter.change(Tenant(tenant.organization_id, new_id()), key)
    assert counter.done == 2


async def test_an_id_is_forgotten_after_a_day(database: Database, counter: Counter, tenant: Tenant) -> None:
    key = a_key()

    async def age(hours: int) -> None:
        async with database.system() as tx:
            await tx.execute("UPDATE request_ids SET created_at = now() - make_interval(hours => $1)", hours)

    await counter.change(tenant, key)
    await age(23)
    await counter.change(tenant, key)
    assert counter.done == 1
    await age(25)
    await counter.change(tenant, RequestKey(key.request_id, key.method, b"another body"))
    assert counter.done == 2
    async with database.system() as tx:
        assert await forget_old(tx) == 0
    await age(25)
    async with database.system() as tx:
        assert await forget_old(tx) == 1


async def test_many_ids_are_taken_at_once_each_for_one_request(database: Database, tenant: Tenant) -> None:
    used, new, twice = a_key(), a_key(), a_key()
    await Counter(database).change(tenant, used)
    other = RequestKey(twice.request_id, "Create", b"another body")
    keys = [used, new, None, twice, other]
    answers = [Answer(new_id(), datetime.now(UTC), parts=[Part("ü")]) for _ in range(3)]
    async with database.tenant(tenant) as tx:
        assert await claim_many(tx, tenant, keys) == [False, True, True, True, False]
        await remember_many(tx, tenant, [new, None, twice], answers)
        tx.audited = True
    async with database.tenant(tenant) as tx:
        assert await recall(tx, tenant, new, Answer) == answers[0]
        assert await recall(tx, tenant, twice, Answer) == answers[2]
        assert await claim_many(tx, tenant, keys) == [False, False, True, False, False]
