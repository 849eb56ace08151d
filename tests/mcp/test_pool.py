"""Connections are shared, bounded in number, closed when idle, and nobody's business but their tenant's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx2
import psutil
import pytest
from stationmaster_server.config.mcp import McpSettings
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import (
    FailedPrecondition,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    StationmasterError,
    Unavailable,
)
from stationmaster_server.mcp.bounds import Bounds
from stationmaster_server.mcp.connections import Connections, Target
from stationmaster_server.mcp.model import Http, Stdio

from tests.mcp import misbehaving
from tests.mcp.connected import connections, target, texts
from tests.waiting import until


def server_of(mode: str = "normal", *, tenant: Tenant | None = None, **options: object) -> Target:
    """A server as a process."""
    made = target(Stdio(sys.executable, (str(misbehaving.PROGRAM), "stdio", mode)))
    return replace(made, tenant=tenant or made.tenant, **options)  # type: ignore[arg-type]


async def test_calls_of_one_tenant_share_a_connection_even_when_they_come_at_once() -> None:
    async with connections() as pool:
        server = server_of()
        answers = await asyncio.gather(*(pool.call(server, "ok", {}) for _ in range(50)))
        assert {texts(answer) for answer in answers} == {"fine"}
        assert (pool.counters.opened, pool.open_now) == (1, 1)


async def test_tenants_versions_and_sessions_have_connections_of_their_own() -> None:
    async with connections() as pool:
        server = server_of()
        tenant = server.tenant
        others = (
            server,
            replace(server, tenant=Tenant(tenant.organization_id, uuid4())),
            replace(server, tenant=Tenant(uuid4(), tenant.user_id)),
            replace(server, server=replace(server.server, etag="2")),
            replace(server, session_id=uuid4()),
            replace(server, session_id=uuid4()),
        )
        for one in others * 2:
            await pool.tools(one)
        assert pool.counters.opened == len(others)


async def test_past_the_limit_the_connection_that_was_idle_longest_goes() -> None:
    async with connections(max_connections=2) as pool:
        first, second, third = server_of(), server_of(), server_of()
        for one in (first, second, first, third):
            await pool.tools(one)
        assert pool.counters.evicted == 1
        await pool.tools(first)
        assert pool.counters.opened == 3  # the first was kept

        async def two_are_open() -> bool:
            return pool.open_now == 2

        await until(two_are_open)


@pytest.mark.parametrize(("of_all", "of_user", "whose"), [(1, 9, "server"), (9, 1, "users/")])
async def test_past_the_limit_and_none_idle_a_call_is_refused(of_all: int, of_user: int, whose: str) -> None:
    async with connections(max_connections=of_all, max_connections_per_user=of_user) as pool:
        busy = server_of()
        await pool.tools(busy)
        hanging = asyncio.create_task(pool.call(busy, "hang", {}, timeout=timedelta(seconds=30)))
        other = server_of(tenant=busy.tenant)

        async def is_refused() -> ResourceExhausted | None:
            try:
                await pool.tools(other)
            except ResourceExhausted as error:
                return error
            await pool.tools(busy)
            return None

        error = await until(is_refused)
        assert error is not None
        assert error.reason is Reason.SERVER_OVERLOADED
        assert error.violations[0].subject.startswith(whose)
        assert texts(await pool.call(busy, "ok", {})) == "fine"  # what is open serves on
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        assert texts(await pool.call(other, "ok", {})) == "fine"


async def test_one_users_limit_is_not_anothers() -> None:
    async with connections(max_connections_per_user=1) as pool:
        first = replace(server_of(), session_id=uuid4())
        await pool.tools(first)
        await pool.tools(server_of())
        with pytest.raises(ResourceExhausted):  # a session's connection is never taken
            await pool.tools(server_of(tenant=first.tenant))


async def test_idle_connections_are_closed_and_those_of_sessions_are_not() -> None:
    async with connections(idle_timeout=timedelta()) as pool:
        session = replace(server_of(), session_id=uuid4())
        busy = server_of()
        for one in (server_of(), session, busy):
            await pool.tools(one)
        hanging = asyncio.create_task(pool.call(busy, "hang", {}))
        await pool.call(busy, "ok", {})
        assert await pool.evict_idle() == 1
        assert pool.open_now == 2
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        assert await pool.evict_idle() == 1
        assert pool.counters.evicted == 2
        assert session.session_id is not None
        await pool.close_session(session.session_id)
        assert pool.open_now == 0
        assert texts(await pool.call(busy, "ok", {})) == "fine"


async def test_a_server_that_was_forgotten_ends_with_its_last_call() -> None:
    async with connections() as pool:
        server = server_of()
        await pool.tools(server)
        hanging = asyncio.create_task(pool.call(server, "hang", {}, timeout=timedelta(seconds=1)))
        await pool.call(server, "ok", {})
        assert server.server.uid is not None
        await pool.forget(server.server.uid)
        assert pool.open_now == 1
        assert not hanging.done()
        await asyncio.gather(hanging, return_exceptions=True)

        async def none_is_open() -> bool:
            return pool.open_now == 0

        await until(none_is_open)


async def test_a_caller_who_leaves_does_not_end_the_connecting_of_others() -> None:
    async with connections() as pool:
        server = server_of()
        first = asyncio.create_task(pool.tools(server))
        second = asyncio.create_task(pool.tools(server))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        assert await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert pool.counters.opened == 1


async def test_closing_ends_what_is_connecting_within_bounds_and_tells_who_waits() -> None:
    async with connections() as pool:
        waiting = asyncio.create_task(pool.tools(server_of("hang_at_start")))

        async def connects() -> bool:
            return pool.open_now == 1

        await until(connects)
        await pool.close()
        with pytest.raises(Unavailable) as raised:
            await waiting
        assert raised.value.reason is Reason.SERVER_STOPPING
        with pytest.raises(Unavailable) as raised:
            await pool.tools(server_of())
        assert raised.value.reason is Reason.SERVER_STOPPING
    assert not [one for one in psutil.Process().children(recursive=True) if "hang_at_start" in one.cmdline()]


@pytest.mark.parametrize("mode", ["html", "old", "die_at_start"])
async def test_closing_waits_for_the_process_of_a_connection_that_failed(mode: str) -> None:
    async with connections() as pool:
        with pytest.raises(StationmasterError):
            await pool.tools(server_of(mode))
    assert not [one for one in psutil.Process().children(recursive=True) if mode in one.cmdline()]


async def test_a_silent_connection_is_pinged_before_it_is_used_again() -> None:
    bounds = Bounds(ping_timeout=timedelta(milliseconds=300))
    async with connections(bounds, ping_interval=timedelta()) as pool:
        answering, silent = server_of(), server_of("no_ping")
        for _ in range(3):
            assert await pool.tools(answering)
        assert pool.counters.opened == 1
        for _ in range(3):
            assert await pool.tools(silent)
        assert pool.counters.opened == 4


async def test_a_command_that_no_pattern_allows_is_refused() -> None:
    async with connections(stdio_commands=("npx", "/opt/*")) as pool:
        with pytest.raises(FailedPrecondition, match=r"the command .* may not be run .*mcp\.stdio_commands") as raised:
            await pool.tools(server_of())
        assert raised.value.reason is Reason.COMMAND_REFUSED
        assert pool.counters.opened == pool.counters.failed == 0


async def test_a_tool_that_is_not_allowed_is_not_called() -> None:
    async with connections() as pool:
        server = server_of()
        narrow = replace(server, server=replace(server.server, allowed_tools=("o*",)))
        assert texts(await pool.call(narrow, "ok", {})) == "fine"
        with pytest.raises(PermissionDenied) as raised:
            await pool.call(narrow, "die", {})
        assert raised.value.reason is Reason.TOOL_DENIED


async def test_an_address_that_may_not_be_reached_is_told_as_such() -> None:
    class Refusing(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            raise FailedPrecondition(Reason.ADDRESS_REFUSED, "the address 127.0.0.1 is private")

    def clients(**options: object) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=Refusing())

    pool = Connections(McpSettings(), built_in={}, http=clients)
    with pytest.raises(FailedPrecondition, match=r"'thing' may not be reached: the address .* is private") as raised:
        await pool.tools(target(Http("http://127.0.0.1:1/mcp")))
    assert raised.value.reason is Reason.ADDRESS_REFUSED
    await pool.close()


async def test_counters_tell_what_happened() -> None:
    async with connections() as pool:
        server = server_of()
        await pool.call(server, "ok", {})
        for name in ("die", "nothing"):
            with pytest.raises(StationmasterError):
                await pool.call(server, name, {})
        counters = pool.counters
        assert (counters.calls, counters.errors, counters.lost, counters.opened) == (3, 2, 1, 2)


def test_the_library_is_not_imported_before_a_server_is_wanted() -> None:
    script = "import sys, stationmaster_server.mcp.connections; print(sorted({'mcp', 'mcp_types'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


def test_in_production_no_command_may_be_run_until_it_is_named(tmp_path: Path) -> None:
    from stationmaster_server.config.model import Profile
    from stationmaster_server.config.profiles import PROFILES

    assert PROFILES[Profile.PRODUCTION]["mcp"]["stdio_commands"] == ()
