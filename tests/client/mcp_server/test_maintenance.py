"""The tools for background services, as agents use them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stationmaster.v1 import task_pb2
from stationmaster_client import Client

from tests.client.cli.program import Program
from tests.client.mcp_server.agent import Agent, kept, over_stdio
from tests.contract.world import task as sample_task
from tests.fixtures.server import RunningServer


async def test_background_services_are_seen_configured_and_triggered(local: Agent, server: RunningServer) -> None:
    text, answer = await local("get_background_service_status")
    names = [service["name"] for service in answer["services"]]
    assert {"task-embedding", "index-optimization", "session-cleanup"} <= set(names)
    assert all(f"{name} is " in text for name in names)
    _, changed = await local(
        "configure_background_service",
        service="task-embedding",
        interval_seconds=120,
        settings={"batch_size": 20},
        paused=True,
        reason="for a while",
    )
    assert (changed["state"], changed["interval_seconds"], changed["settings"]) == ("paused", 120, {"batch_size": 20})
    text, one = await local("get_background_service_status", service="task-embedding")
    assert one["services"][0]["pause_reason"] == "for a while"
    _, back = await local("configure_background_service", service="task-embedding", paused=False, enabled=True)
    assert (back["state"] != "paused", back["interval_seconds"]) == (True, 120)
    wrong = await local.error("configure_background_service", service="task-embedding", settings={"colour": "green"})
    assert "batch_size" in wrong
    reset = ["interval", "batch_size"]
    _, fresh = await local("configure_background_service", service="task-embedding", reset=reset)
    assert (fresh["interval_seconds"], fresh["settings"]["batch_size"] != 20) == (60, True)
    wrong = await local.error(
        "configure_background_service", service="task-embedding", max_failures=4, reset=["max_failures"]
    )
    assert "either set or" in wrong
    wrong = await local.error("configure_background_service", service="task-embedding", reset=["colour"])
    assert "max_failures" in wrong
    text, optimized = await local("trigger_index_optimization")
    assert (optimized["state"], "tables" in optimized["result"]) == ("succeeded", True)
    assert optimized["name"] in text


async def test_a_task_is_embedded_when_somebody_asks_for_it(local: Agent, server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        created: Any = await client.tasks.create("papaya", sample_task())
        assert isinstance(created, task_pb2.Task)
    _, done = await local("force_task_embedding", task="papaya")
    assert (done["state"], done["result"]["task"]) == ("succeeded", "tasks/papaya")
    result = await local.raw("force_task_embedding", task="nobody")
    assert result.is_error
    assert "tasks/nobody" in result.content[0].text


async def test_who_is_no_operator_is_told_so(server: RunningServer, program: Program) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        key = await client.keys.create("tests", scopes=["maintenance.*", "tasks.*"])
    async with kept(over_stdio(replace(program, api_key=key.secret))) as other:
        refused = await other.error("get_background_service_status")
    assert "operators" in refused
