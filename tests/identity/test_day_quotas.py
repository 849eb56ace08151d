"""Quotas of the day: tokens, cost, tool calls and running time, each a cap that is one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Reason, ResourceExhausted
from stationmaster_server.identity import quota_store
from stationmaster_server.identity.model import Amounts, Caller
from stationmaster_server.identity.quotas import Slice

from tests.identity.conftest import Server, start_server
from tests.identity.test_quotas import outcome, reserve, usage

COUNTED = ["tokens", "cost_micros", "tool_calls"]


def amount(kind: str, value: int) -> Amounts:
    """So much of one kind."""
    named: dict[str, Any] = {kind: value}
    return Amounts(**named)


async def reserve_time(server: Server, caller: Caller) -> Slice:
    """What a turn does before it runs on."""
    async with server.quotas.telling(), server.database.system() as tx:
        time = await server.quotas.reserve_time(tx, caller)
    assert time is not None
    return time


@pytest.mark.parametrize("organization", [False, True])
@pytest.mark.parametrize("kind", COUNTED)
async def test_racing_reservations_on_two_servers_never_pass_the_cap(
    server: Server, servers: AsyncExitStack, owner: Caller, database: Database, kind: str, organization: bool
) -> None:
    other = await start_server(servers, database)
    limit: dict[str, Any] = {f"max_{kind}_per_day": 1000}
    await server.set_quota(owner, organization=organization, **limit)
    other.quotas.forget()
    attempts = [reserve((server, other)[n % 2], owner, amount(kind, 30)) for n in range(100)]
    assert outcome(await asyncio.gather(*attempts, return_exceptions=True)) == (33, 67)
    assert (await usage(server, owner, organization=organization)).today == amount(kind, 990)


@pytest.mark.parametrize("kind", COUNTED)
async def test_a_refusal_names_the_quota_and_waits_for_midnight(server: Server, owner: Caller, kind: str) -> None:
    limit: dict[str, Any] = {f"max_{kind}_per_day": 10}
    await server.set_quota(owner, **limit)
    with pytest.raises(ResourceExhausted) as refusal:
        await reserve(server, owner, amount(kind, 11))
    assert refusal.value.reason is Reason.QUOTA_EXCEEDED
    (violation,) = refusal.value.violations
    assert violation.subject == f"users/{owner.tenant.user_id}"
    assert violation.description == f"max_{kind}_per_day is 10; 0 are used and 11 more were asked for"
    assert timedelta(0) < refusal.value.retry_after <= timedelta(days=1)


async def test_refused_for_one_kind_nothing_of_the_others_is_set_aside(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, max_tokens_per_day=100)
    await server.set_quota(owner, organization=True, max_cost_micros_per_day=50)
    with pytest.raises(ResourceExhausted, match="max_cost_micros_per_day is 50"):
        await reserve(server, owner, Amounts(tokens=10, cost_micros=51))
    assert (await usage(server, owner)).today == Amounts()
    await reserve(server, owner, Amounts(tokens=100, cost_micros=50))


async def test_what_is_used_up_stops_its_own_kind_only(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, max_tokens_per_day=0, max_tool_calls_per_day=1)
    await reserve(server, owner, Amounts(tool_calls=1))
    with pytest.raises(ResourceExhausted, match="max_tokens_per_day is 0"):
        await reserve(server, owner, Amounts(tokens=1, cost_micros=1))


async def test_running_time_is_never_promised_twice(
    server: Server, servers: AsyncExitStack, owner: Caller, database: Database
) -> None:
    other = await start_server(servers, database)
    cap = timedelta(minutes=5)
    await server.set_quota(owner, organization=True, max_running_time_per_day=cap)
    other.quotas.forget()

    async def run(on: Server) -> timedelta:
        total = timedelta(0)
        try:
            while True:
                total += (await reserve_time(on, owner)).length
        except ResourceExhausted:
            return total

    total = sum(await asyncio.gather(*(run((server, other)[n % 2]) for n in range(20))), timedelta(0))
    assert cap - timedelta(seconds=1) < total <= cap
    assert (await usage(server, owner, organization=True)).today == Amounts(running_time=total)


async def test_slices_of_time_are_a_minute_at_most_and_less_near_the_cap(server: Server, owner: Caller) -> None:
    await server.set_quota(owner, max_running_time_per_day=timedelta(hours=1))
    assert (await reserve_time(server, owner)).length == timedelta(minutes=1)
    await server.set_quota(owner, max_running_time_per_day=timedelta(minutes=3))
    assert (await reserve_time(server, owner)).length == timedelta(seconds=6)
    await server.set_quota(owner, max_running_time_per_day=timedelta(seconds=67.5))
    assert (await reserve_time(server, owner)).length == timedelta(seconds=1)
    with pytest.raises(ResourceExhausted, match="max_running_time_per_day is 68 s; 67 s are used and 1 s more"):
        await reserve_time(server, owner)


async def test_where_time_is_not_limited_none_is_set_aside(server: Server, owner: Caller) -> None:
    async with server.database.system() as tx:
        assert await server.quotas.reserve_time(tx, owner) is None
    assert (await usage(server, owner)).today == Amounts()


async def test_what_belongs_to_yesterday_is_not_of_today(server: Server, owner: Caller, database: Database) -> None:
    await server.set_quota(owner, max_tokens_per_day=100, max_running_time_per_day=timedelta(seconds=10))
    reservation = await reserve(server, owner, Amounts(tokens=100))
    await reserve_time(server, owner)
    async with database.system() as tx:
        await tx.execute("UPDATE quota_usage SET day = day - 1")
        yesterday = await quota_store.today(tx) - timedelta(days=1)
    assert (await usage(server, owner)).today == Amounts()
    await reserve(server, owner, Amounts(tokens=100))
    async with database.system() as tx:
        await server.quotas.settle(tx, replace(reservation, day=yesterday), Amounts(tokens=40))
    assert (await usage(server, owner)).today == Amounts(tokens=100)
