"""The MCP server `monitoring`: the own organization's numbers, and the process for administrators."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.mcp.builtin.figures import HealthFigures
from stationmaster_server.mcp.builtin.monitoring import make_server
from stationmaster_server.mcp.builtin.readings import Monitoring
from stationmaster_server.sessions.summary_store import summary
from stationmaster_server.telemetry.metrics import Metrics

from tests.fixtures.database import make_tenant
from tests.mcp.builtin.calling import answer, refusal

HEALTHY = HealthFigures({"": True, "stationmaster.v1.SessionService": True}, {})


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics()
    metrics.counter("rpc_calls", "Calls.", "method").labels("Get").inc(3)
    metrics.read("queue", "Items.", lambda: {f"kind {number}": 1.0 for number in range(300)})
    return metrics


@pytest.fixture
def monitoring(database: Database, metrics: Metrics) -> Monitoring:
    return Monitoring(database, metrics.registry, lambda: HEALTHY, summary)


@pytest.fixture
def server(monitoring: Monitoring, tenant: Tenant) -> MCPServer:
    return make_server(monitoring, tenant)


async def join(database: Database, organization_id: UUID, role: str) -> Tenant:
    """One more user."""
    user = new_id()
    async with database.system() as tx:
        await tx.execute(
            "INSERT INTO users (organization_id, id, display_name, role) VALUES ($1, $2, 'Somebody', $3)",
            organization_id,
            user,
            role,
        )
    return Tenant(organization_id, user)


async def put_work(database: Database, tenant: Tenant, kind: str, state: str, error: str = "") -> None:
    """One work item."""
    errors = [{"attempt": 1, "error": error}] if error else []
    async with database.system() as tx:
        await tx.execute(
            """INSERT INTO work_items (organization_id, user_id, item_id, kind, subject_id, state, priority, payload,
                                       errors, attempt, run_at, reason, finished_at)
               VALUES ($1, $2, $3, $4, $3, $5, 3, '{}', $6, 1, now() - interval '1 hour', $7,
                       CASE WHEN $5 = 'DEAD' THEN now() END)""",
            tenant.organization_id,
            tenant.user_id,
            new_id(),
            kind,
            state,
            errors,
            "INTERNAL" if error else None,
        )


async def put_session(database: Database, tenant: Tenant, state: str, *, turn: str = "", asks: bool = False) -> None:
    """A session, perhaps with an open turn, perhaps with a permission request."""
    session, turn_id = new_id(), new_id()
    of = (tenant.organization_id, tenant.user_id, session)
    async with database.system() as tx:
        await tx.execute(
            """INSERT INTO sessions (organization_id, user_id, id, display_name, state, spec, tool_policies, limits,
                                     labels)
               VALUES ($1, $2, $3, '', $4, '{}', '[]', '{}', '{}')""",
            *of,
            state,
        )
        if turn:
            await tx.execute(
                """INSERT INTO turns (organization_id, user_id, session_id, id, state, input_text, recovery)
                   VALUES ($1, $2, $3, $4, $5, '', '')""",
                *of,
                turn_id,
                turn,
            )
        if asks:
            await tx.execute(
                """INSERT INTO permission_requests (organization_id, user_id, session_id, turn_id, id, step, call_id,
                                                    tool, arguments, state, on_timeout)
                   VALUES ($1, $2, $3, $4, $4, 1, 'c', 'write_file', '{}', 'PENDING', 'DENY')""",
                *of,
                turn_id,
            )


def counts(queues: Any) -> dict[tuple[str, str], int]:
    return {(queue["kind"], queue["state"]): queue["count"] for queue in queues["queues"]}


async def test_health_tells_services_and_the_latency_of_the_database(server: MCPServer) -> None:
    health = await answer(server, "health")
    assert health["healthy"]
    assert health["services"] == {"(whole server)": True, "stationmaster.v1.SessionService": True}
    assert health["database_latency_ms"] > 0


async def test_health_tells_what_is_missing(database: Database, metrics: Metrics, tenant: Tenant) -> None:
    broken = HealthFigures({"": False}, {"model": "no key"})
    server = make_server(Monitoring(database, metrics.registry, lambda: broken, summary), tenant)
    health = await answer(server, "health")
    assert not health["healthy"]
    assert health["missing"] == {"model": "no key"}


async def test_metrics_are_those_of_the_prefix(server: MCPServer) -> None:
    found = await answer(server, "metrics", prefix="stationmaster_rpc")
    assert found["samples"] == [{"name": "stationmaster_rpc_calls_total", "labels": {"method": "Get"}, "value": 3.0}]


async def test_metrics_are_bounded_with_a_mark(server: MCPServer) -> None:
    found = await answer(server, "metrics")
    assert len(found["samples"]) == 200
    assert found["truncated"]


@pytest.mark.parametrize("role", ["member", "viewer", "service"])
@pytest.mark.parametrize("tool", ["health", "metrics"])
async def test_numbers_of_the_process_are_for_administrators_only(
    database: Database, monitoring: Monitoring, tenant: Tenant, role: str, tool: str
) -> None:
    somebody = await join(database, tenant.organization_id, role)
    assert "owners and administrators" in await refusal(make_server(monitoring, somebody), tool)


async def test_disabled_user_is_told_nothing(database: Database, server: MCPServer, tenant: Tenant) -> None:
    async with database.system() as tx:
        await tx.execute("UPDATE users SET disabled_at = now() WHERE id = $1", tenant.user_id)
    for tool in ("health", "metrics", "queues", "sessions"):
        assert "disabled" in await refusal(server, tool)


async def test_queues_tell_the_own_organizations_work_and_nobody_elses(
    database: Database, server: MCPServer, tenant: Tenant
) -> None:
    await put_work(database, tenant, "turn", "QUEUED")
    await put_work(database, tenant, "turn", "QUEUED")
    await put_work(database, tenant, "export", "DEAD", "the disk is full")
    await put_work(database, await make_tenant(database), "turn", "QUEUED")
    found = await answer(server, "queues")
    assert counts(found) == {("turn", "QUEUED"): 2, ("export", "DEAD"): 1}
    assert found["queues"][1]["oldest_seconds"] >= 3600
    assert [(item["kind"], item["error"], item["attempts"]) for item in found["dead"]] == [
        ("export", "the disk is full", 1)
    ]


async def test_queues_of_one_kind(database: Database, server: MCPServer, tenant: Tenant) -> None:
    await put_work(database, tenant, "turn", "QUEUED")
    await put_work(database, tenant, "export", "DEAD", "no")
    assert counts(await answer(server, "queues", kind="turn")) == {("turn", "QUEUED"): 1}


async def test_sessions_tell_states_turns_permissions_and_cost(
    database: Database, server: MCPServer, tenant: Tenant
) -> None:
    await put_session(database, tenant, "ACTIVE")
    await put_session(database, tenant, "PROCESSING", turn="RUNNING")
    await put_session(database, tenant, "AWAITING_PERMISSION", turn="AWAITING_PERMISSION", asks=True)
    await put_session(database, await make_tenant(database), "ACTIVE", asks=True)
    async with database.system() as tx:
        await tx.execute(
            """INSERT INTO quota_usage (organization_id, subject_id, shard, day, cost_micros)
               VALUES ($1, $1, 0, current_date, 42)""",
            tenant.organization_id,
        )
    found = await answer(server, "sessions")
    assert found["sessions"] == {"ACTIVE": 1, "AWAITING_PERMISSION": 1, "PROCESSING": 1}
    assert found["open_turns"] == {"AWAITING_PERMISSION": 1, "RUNNING": 1}
    assert found["waiting_permissions"] == 1
    assert found["oldest_permission_seconds"] >= 0
    assert found["cost_micros_today"] == 42


async def test_member_sees_only_what_is_its_own(database: Database, monitoring: Monitoring, tenant: Tenant) -> None:
    member = await join(database, tenant.organization_id, "member")
    for whose in (tenant, member):
        await put_session(database, whose, "PROCESSING", turn="RUNNING", asks=True)
        await put_work(database, whose, "export", "DEAD", f"of {whose.user_id}")
    server = make_server(monitoring, member)
    sessions = await answer(server, "sessions")
    assert (sessions["of"], sessions["sessions"], sessions["waiting_permissions"]) == (
        "the caller",
        {"PROCESSING": 1},
        1,
    )
    queues = await answer(server, "queues")
    assert counts(queues) == {("export", "DEAD"): 1}
    assert [item["error"] for item in queues["dead"]] == [f"of {member.user_id}"]


async def test_error_texts_of_dead_work_are_cut(database: Database, server: MCPServer, tenant: Tenant) -> None:
    await put_work(database, tenant, "export", "DEAD", "x" * 100_000)
    (item,) = (await answer(server, "queues"))["dead"]
    assert len(item["error"]) < 600
    assert "cut" in item["error"]


async def test_every_tool_says_that_it_only_reads(server: MCPServer) -> None:
    async with Client(server) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == {"health", "metrics", "queues", "sessions"}
    assert all(tool.annotations is not None and tool.annotations.read_only_hint for tool in tools)
