"""Quotas: a cap is a cap, whoever races."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import (
    Aborted,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
)
from stationmaster_server.identity import quota_store
from stationmaster_server.identity.model import Amounts, AuditEntry, Caller, Role, Usage
from stationmaster_server.identity.quotas import Reservation

from tests.identity.conftest import Server, as_user, start_server


async def open_session(server: Server, caller: Caller) -> None:
    """What CreateSession does as far as quotas go."""
    async with server.quotas.telling(), server.database.tenant(caller.tenant) as tx:
        await server.quotas.open_session(tx, caller)
        await server.audit.write(tx, caller, AuditEntry("session.create", "sessions/-"))


async def close_session(server: Server, caller: Caller) -> None:
    """What TerminateSession does as far as quotas go."""
    async with server.database.tenant(caller.tenant) as tx:
        await server.quotas.close_session(tx, caller.tenant)
        await server.audit.write(tx, caller, AuditEntry("session.terminate", "sessions/-"))


async def usage(server: Server, caller: Caller, *, organization: bool = False) -> Usage:
    """What is used of the caller's quota, or of its organization's."""
    tenant = caller.tenant
    subject = tenant.organization_id if organization else tenant.user_id
    return await server.settings.usage(caller, subject, of_organization=organization)


async def reserve(
    server: Server, caller: Caller, amounts: Amounts | int, earlier: Reservation | None = None
) -> Reservation:
    """What a turn does before it asks a model; a number is of cost."""
    wanted = Amounts(cost_micros=amounts) if isinstance(amounts, int) else amounts
    async with server.quotas.telling(), server.database.system() as tx:
        return await server.quotas.reserve(tx, caller, wanted, earlier)


async def cost_left(server: Server, caller: Caller) -> int | None:
    """What is left of the day's cost."""
    left = await server.quotas.left(caller)
    return None if left is None else left.cost_micros


def outcome(answers: list[Any]) -> tuple[int, int]:
    """How many were admitted and how many refused by a quota; anything else is raised."""
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, ResourceExhausted):
            raise answer
    refused = sum(isinstance(answer, ResourceExhausted) for answer in answers)
    return len(answers) - refused, refused


async def test_of_racing_creates_exactly_one_gets_the_last_slot(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, max_concurrent_sessions=3)
    await open_session(server, owner)
    await open_session(server, owner)
    answers = await asyncio.gather(*(open_session(server, owner) for _ in range(50)), return_exceptions=True)
    assert outcome(answers) == (1, 49)
    assert (await usage(server, owner)).concurrent_sessions == 3


async def test_users_who_race_for_their_organizations_last_slot_get_one(
    server: Server, servers: AsyncExitStack, owner: Caller, database: Database
) -> None:
    other = await start_server(servers, database)
    callers = [owner, *[as_user(await server.create_user(owner, Role.MEMBER)) for _ in range(4)]]
    await server.set_quota(owner, organization=True, max_concurrent_sessions=1)
    other.quotas.forget()
    attempts = [open_session((server, other)[n % 2], callers[n % 5]) for n in range(50)]
    assert outcome(await asyncio.gather(*attempts, return_exceptions=True)) == (1, 49)
    assert (await usage(server, owner, organization=True)).concurrent_sessions == 1


async def test_a_closed_session_makes_room(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, max_concurrent_sessions=1)
    for _ in range(5):
        await open_session(server, owner)
        with pytest.raises(ResourceExhausted):
            await open_session(server, owner)
        await close_session(server, owner)
    assert (await usage(server, owner)).concurrent_sessions == 0


async def test_a_session_that_was_rolled_back_was_never_counted(server: Server, owner: Caller) -> None:
    async def fail() -> None:
        async with server.database.tenant(owner.tenant) as tx:
            await server.quotas.open_session(tx, owner)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert (await usage(server, owner)).concurrent_sessions == 0


async def test_sessions_are_counted_before_there_is_a_limit(server: Server, owner: Caller) -> None:
    await asyncio.gather(*(open_session(server, owner) for _ in range(20)))
    await server.set_quota(owner, max_concurrent_sessions=20)
    with pytest.raises(ResourceExhausted):
        await open_session(server, owner)
    await server.set_quota(owner, max_concurrent_sessions=21)
    await open_session(server, owner)


async def test_a_limit_of_zero_admits_nothing(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, max_concurrent_sessions=0, max_calls_per_hour=0)
    with pytest.raises(ResourceExhausted):
        await open_session(server, owner)
    with pytest.raises(ResourceExhausted):
        await server.quotas.take_call(owner)


async def test_a_refusal_names_the_quota_says_when_to_come_again_and_is_audited(
    server: Server, owner: Caller, database: Database
) -> None:
    await server.set_quota(owner, organization=True, max_calls_per_hour=0)
    with pytest.raises(ResourceExhausted) as refusal:
        await server.quotas.take_call(owner)
    assert refusal.value.reason is Reason.QUOTA_EXCEEDED
    assert 0 < refusal.value.retry_after.total_seconds() <= 3600
    (violation,) = refusal.value.violations
    assert violation.subject == f"organizations/{owner.tenant.organization_id}"
    assert "max_calls_per_hour is 0" in violation.description
    async with database.system(autocommit=True) as tx:
        row = await tx.fetchrow("SELECT * FROM audit_events WHERE action = 'quota.refuse'")
    assert row is not None
    assert (row["outcome"], row["reason"], row["method"]) == ("denied", "QUOTA_EXCEEDED", owner.method)


async def test_calls_of_two_servers_are_admitted_exactly_to_the_limit(
    server: Server, servers: AsyncExitStack, owner: Caller, database: Database
) -> None:
    other = await start_server(servers, database)
    await server.set_quota(owner, max_calls_per_hour=333)
    other.quotas.forget()

    async def call(on: Server) -> int:
        admitted = 0
        try:
            while True:
                await on.quotas.take_call(owner)
                admitted += 1
        except ResourceExhausted:
            return admitted

    # Each server's callers go on until they are refused, so no block is left over.
    admitted = await asyncio.gather(*(call((server, other)[n % 2]) for n in range(20)))
    assert sum(admitted) == 333
    assert (await usage(server, owner)).calls_this_hour == 333


async def test_a_call_that_the_organization_refuses_costs_the_user_nothing(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, max_calls_per_hour=5)
    await server.set_quota(owner, organization=True, max_calls_per_hour=1)
    await server.quotas.take_call(owner)
    for _ in range(10):
        with pytest.raises(ResourceExhausted) as refusal:
            await server.quotas.take_call(owner)
        assert refusal.value.violations[0].subject.startswith("organizations/")


async def test_an_hour_that_is_over_counts_no_more(server: Server, owner: Caller, database: Database) -> None:
    await server.set_quota(owner, max_calls_per_hour=1)
    await server.quotas.take_call(owner)
    async with database.system() as tx:
        await tx.execute("UPDATE quota_calls SET hour = hour - interval '1 hour'")
    # The first server knows its hour by its own clock; a fresh one asks the database.
    async with AsyncExitStack() as stack:
        fresh = await start_server(stack, database)
        await fresh.quotas.take_call(owner)
        with pytest.raises(ResourceExhausted):
            await fresh.quotas.take_call(owner)


async def test_racing_reservations_never_overrun_the_days_cost(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, max_cost_micros_per_day=1000)
    attempts = [reserve(server, owner, 300) for _ in range(50)]
    assert outcome(await asyncio.gather(*attempts, return_exceptions=True)) == (3, 47)
    assert (await usage(server, owner)).today.cost_micros == 900


async def test_a_settled_reservation_counts_what_it_cost(server: Server, owner: Caller, database: Database) -> None:
    await server.set_quota(owner, max_cost_micros_per_day=1000)
    reservation = await reserve(server, owner, 900)
    with pytest.raises(ResourceExhausted) as refusal:
        await reserve(server, owner, 200)
    assert 0 < refusal.value.retry_after.total_seconds() <= 86400
    async with database.system() as tx:
        await server.quotas.settle(tx, reservation, Amounts(cost_micros=100))
    assert (await usage(server, owner)).today.cost_micros == 100
    await reserve(server, owner, 900)


async def test_a_call_that_outlasts_its_day_is_of_the_day_for_which_it_was_reserved(
    server: Server, owner: Caller, database: Database
) -> None:
    await server.set_quota(owner, max_cost_micros_per_day=1000)
    reservation = await reserve(server, owner, 1000)
    async with database.system() as tx:
        await tx.execute("UPDATE quota_usage SET day = day - 1")
        yesterday = await tx.fetchval("SELECT current_date - 1")
    assert (await usage(server, owner)).today.cost_micros == 0
    reservation = replace(reservation, day=yesterday)
    await reserve(server, owner, 1000)
    async with database.system() as tx:
        await server.quotas.settle(tx, reservation, Amounts(cost_micros=400))
    assert (await usage(server, owner)).today.cost_micros == 1000


async def test_a_further_attempt_reserves_what_the_first_did_not(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, max_cost_micros_per_day=1000)
    first = await reserve(server, owner, 600)
    assert await cost_left(server, owner) == 400
    both = await reserve(server, owner, 900, first)
    assert (both.amounts.cost_micros, await cost_left(server, owner)) == (900, 100)
    with pytest.raises(ResourceExhausted):
        await reserve(server, owner, 1200, both)
    assert (await usage(server, owner)).today.cost_micros == 900


@pytest.mark.parametrize("seed", range(5))
async def test_reservations_agree_with_a_model_of_them(
    server: Server, owner: Caller, database: Database, seed: int
) -> None:
    """Reserve, reserve more, settle, a crash, midnight: after each, what is used is what the model says."""
    chance, cap = random.Random(seed), 1000
    await server.set_quota(owner, max_cost_micros_per_day=cap)
    open_ones: list[Reservation] = []
    used = 0
    for _ in range(60):
        what = chance.choice(["reserve", "reserve", "more", "settle", "settle", "midnight"])
        if what == "reserve":
            amount = chance.randint(1, 400)
            if used + amount > cap:
                with pytest.raises(ResourceExhausted):
                    await reserve(server, owner, amount)
            else:
                open_ones.append(await reserve(server, owner, amount))
                used += amount
        elif what == "more" and open_ones:
            earlier = open_ones.pop(chance.randrange(len(open_ones)))
            together = earlier.amounts.cost_micros + chance.randint(0, 200)
            today = earlier.day == await day_of(database)
            more = together - (earlier.amounts.cost_micros if today else 0)
            if used + more > cap:
                with pytest.raises(ResourceExhausted):
                    await reserve(server, owner, together, earlier)
                open_ones.append(earlier)
            else:
                open_ones.append(await reserve(server, owner, together, earlier))
                used += more
        elif what == "settle" and open_ones:
            # A server that died is settled with all that was reserved.
            reservation = open_ones.pop(chance.randrange(len(open_ones)))
            actual = chance.choice(
                [0, reservation.amounts.cost_micros, chance.randint(0, reservation.amounts.cost_micros)]
            )
            async with database.system() as tx:
                await server.quotas.settle(tx, reservation, Amounts(cost_micros=actual))
            if reservation.day == await day_of(database):
                used -= reservation.amounts.cost_micros - actual
        elif what == "midnight" and chance.random() < 0.3:
            async with database.system() as tx:
                await tx.execute("UPDATE quota_usage SET day = day - 1")
            open_ones = [replace(one, day=one.day - timedelta(days=1)) for one in open_ones if one.day is not None]
            used = 0
        assert (await usage(server, owner)).today.cost_micros == used <= cap


async def day_of(database: Database) -> date:
    """The day by the database's clock."""
    async with database.system(autocommit=True) as tx:
        return await quota_store.today(tx)


async def test_cost_is_counted_where_nothing_is_limited(server: Server, owner: Caller, database: Database) -> None:
    reservation = await reserve(server, owner, 500)
    async with database.system() as tx:
        await server.quotas.settle(tx, reservation, Amounts(cost_micros=123))
    assert (await usage(server, owner, organization=True)).today.cost_micros == 123


@pytest.mark.parametrize("organization", [False, True])
async def test_of_racing_uploads_no_more_get_room_than_there_is(
    server: Server, owner: Caller, database: Database, organization: bool
) -> None:
    await server.set_quota(owner, organization=organization, max_storage_bytes=1_000)

    async def reserve_storage() -> None:
        async with server.quotas.telling(), database.system() as tx:
            await server.quotas.reserve_storage(tx, owner, owner.tenant.user_id, 100)

    outcomes = await asyncio.gather(*(reserve_storage() for _ in range(50)), return_exceptions=True)
    assert outcome(outcomes) == (10, 40)
    assert (await usage(server, owner, organization=organization)).storage_bytes == 1_000
    async with database.system() as tx:
        await server.quotas.count_storage(
            tx, owner.tenant.organization_id, owner.tenant.user_id, used=30, reserved=-130
        )
    assert (await usage(server, owner)).storage_bytes == 900
    await reserve_storage()


async def test_of_racing_users_exactly_one_gets_the_last_place(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, organization=True, max_users=3)
    await server.create_user(owner, Role.MEMBER)
    attempts = [server.create_user(owner, Role.MEMBER) for _ in range(50)]
    assert outcome(await asyncio.gather(*attempts, return_exceptions=True)) == (1, 49)


async def test_another_server_goes_by_a_new_quota_within_a_second(
    server: Server, servers: AsyncExitStack, owner: Caller, database: Database
) -> None:
    other = await start_server(servers, database)
    await other.quotas.take_call(owner)
    await server.set_quota(owner, max_calls_per_hour=0)
    refused = False
    async with asyncio.timeout(1):
        while not refused:
            try:
                await other.quotas.take_call(owner)
                await asyncio.sleep(0.01)
            except ResourceExhausted:
                refused = True


async def test_quotas_are_set_by_mask_etag_and_validate_only(server: Server, owner: Caller) -> None:
    subject = owner.tenant.user_id
    quota = await server.set_quota(owner, max_concurrent_sessions=5, max_calls_per_hour=7)
    changed = await server.settings.set(
        owner, subject, {"max_concurrent_sessions": None}, str(quota.revision), of_organization=False
    )
    assert (changed.max_concurrent_sessions, changed.max_calls_per_hour) == (None, 7)
    with pytest.raises(Aborted):
        await server.settings.set(owner, subject, {"max_calls_per_hour": 1}, str(quota.revision), of_organization=False)
    checked = await server.settings.set(
        owner, subject, {"max_calls_per_hour": 1}, of_organization=False, validate_only=True
    )
    assert checked.max_calls_per_hour == 1
    assert await server.settings.get(owner, subject, of_organization=False) == changed
    with pytest.raises(InvalidArgument):
        await server.settings.set(owner, subject, {"max_users": 1}, of_organization=False)


async def test_who_may_set_quotas(server: Server, owner: Caller, stranger: Caller, operator: Caller) -> None:
    admin = as_user(await server.create_user(owner, Role.ADMIN))
    member = as_user(await server.create_user(owner, Role.MEMBER))
    limits = {"max_calls_per_hour": 1}
    organization_id, user_id = owner.tenant.organization_id, member.tenant.user_id
    for caller, subject, of_organization in ((member, user_id, False), (admin, organization_id, True)):
        with pytest.raises(PermissionDenied):
            await server.settings.set(caller, subject, limits, of_organization=of_organization)
    for caller, subject, of_organization in ((stranger, user_id, False), (stranger, organization_id, True)):
        with pytest.raises(NotFound):
            await server.settings.set(caller, subject, limits, of_organization=of_organization)
        with pytest.raises(NotFound):
            await server.settings.get(caller, subject, of_organization=of_organization)
    await server.settings.set(admin, user_id, limits, of_organization=False)
    await server.settings.set(operator, organization_id, limits, of_organization=True)
    await server.settings.set(operator, user_id, limits, of_organization=False)
    assert (await server.settings.get(owner, organization_id, of_organization=True)).max_calls_per_hour == 1


async def test_refusals_do_not_block_those_who_wait_for_the_same_quota(
    server: Server, owner: Caller, database: Database
) -> None:
    await server.set_quota(owner, max_concurrent_sessions=0, max_cost_micros_per_day=10_000)
    sessions = [open_session(server, owner) for _ in range(50)]
    costs = [reserve(server, owner, 10) for _ in range(50)]
    async with asyncio.timeout(8):
        answers = await asyncio.gather(*sessions, *costs, return_exceptions=True)
    assert outcome(answers[:50]) == (0, 50)
    assert outcome(answers[50:]) == (50, 0)


async def test_a_refusal_is_written_when_its_transaction_is_over(
    server: Server, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_transactions, write = [], server.audit.write_refusal

    async def written(caller: Caller, entry: AuditEntry) -> None:
        async with server.database.system(autocommit=True) as tx:
            sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = ("
            sql += "SELECT oid FROM pg_database WHERE datname = current_database())"
            open_transactions.append(await tx.fetchval(sql))
        await write(caller, entry)

    await server.set_quota(owner, max_concurrent_sessions=0)
    monkeypatch.setattr(server.audit, "write_refusal", written)
    with pytest.raises(ResourceExhausted):
        await open_session(server, owner)
    assert open_transactions == [0]


async def test_a_limit_far_above_the_connections_is_exact_too(
    server: Server, servers: AsyncExitStack, owner: Caller, database: Database
) -> None:
    other = await start_server(servers, database)
    async with database.system(autocommit=True) as tx:
        limit = await tx.fetchval("SELECT current_setting('max_connections')::int") + 30
    await server.set_quota(owner, organization=True, max_concurrent_sessions=limit)
    other.quotas.forget()
    attempts = [open_session((server, other)[n % 2], owner) for n in range(limit + 50)]
    assert outcome(await asyncio.gather(*attempts, return_exceptions=True)) == (limit, 50)
    assert (await usage(server, owner, organization=True)).concurrent_sessions == limit
