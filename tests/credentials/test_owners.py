"""Nobody reads what he has no grant for through what belongs to somebody else, administrators neither."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from stationmaster.v1 import agent_pb2, task_pb2
from stationmaster_client.errors import PermissionDenied
from stationmaster_client.structs import values
from stationmaster_server.wire.fields import struct

from tests.credentials.test_using import SECRET, client_of, member_of, provider, station
from tests.fixtures.server import RunningServer

__all__ = ["provider", "station"]

DAY = timedelta(days=1)
YEARLY = task_pb2.Schedule(cron="0 0 1 1 *")
ELSEWHERE = {"url": "http://127.0.0.1:9/stolen"}
WITH_CREDENTIAL = {"credential_headers": {"authorization": "Bearer {credentials/private}"}}


def task(name: str, payload: Mapping[str, Any]) -> task_pb2.Task:
    task = task_pb2.Task(name=f"tasks/{name}", kind="webhook", payload=struct(payload), schedule=YEARLY)
    task.variables.add(name="host", default_value={"string_value": "127.0.0.1:9"})
    return task


@pytest.mark.parametrize(
    "sends",
    [WITH_CREDENTIAL, {"secret_credential": "credentials/private"}, {"headers": {"authorization": "Bearer kept"}}],
    ids=["a credential in a header", "a credential that signs", "a secret of the payload"],
)
async def test_what_sends_a_users_secrets_is_changed_by_that_user_alone(
    station: RunningServer, sends: dict[str, Any]
) -> None:
    async with client_of(station) as admin:
        _, key = await member_of(admin)
        async with client_of(station, key) as member:
            await member.credentials.create("private", SECRET)
            made = await member.tasks.create("job", task("job", {"url": "http://{{ host }}/x", **sends}))
            kept = values(made.payload)  # with masks, as everybody sees it
            year = datetime(2025, 1, 1, tzinfo=UTC)
            for attempt in (
                admin.tasks.update(task("job", {**kept, **ELSEWHERE}), ["payload"]),
                admin.tasks.update(task("job", ELSEWHERE), ["payload"]),
                admin.tasks.update(task("job", {}), ["variables"]),
                admin.tasks.backfill("job", year - DAY, year + DAY, variables={"host": "127.0.0.1:9"}),
            ):
                with pytest.raises(PermissionDenied, match="that user alone"):
                    await attempt
            await admin.tasks.update(task("job", {}), ["schedule"])
            await admin.tasks.pause("job")
            await member.tasks.update(task("job", {**kept, **ELSEWHERE}), ["payload", "variables"])


async def test_an_administrator_brings_no_credential_into_a_task_or_session_of_somebody_else(
    station: RunningServer,
) -> None:
    async with client_of(station) as admin:
        _, key = await member_of(admin)
        async with client_of(station, key) as member:
            await member.credentials.create("private", SECRET)
            await member.tasks.create("job", task("job", {"url": "http://127.0.0.1:9/x"}))
            session = await member.sessions.create(spec=agent_pb2.AgentSpec(model="demo"))
        await admin.tasks.update(task("job", ELSEWHERE), ["payload"])  # what sends no secret may be mended
        with pytest.raises(PermissionDenied, match="that user alone"):
            await admin.tasks.update(task("job", {**ELSEWHERE, **WITH_CREDENTIAL}), ["payload"])
        session.spec.credential = "credentials/private"
        with pytest.raises(PermissionDenied, match="that user alone"):
            await admin.sessions.update(session, ["spec"])


async def test_an_agent_that_is_pointed_at_another_provider_loses_what_it_was_granted(station: RunningServer) -> None:
    spec = agent_pb2.AgentSpec(model="openai:gpt-4o", credential="credentials/openai")
    async with client_of(station) as admin:
        await admin.credentials.create("openai", SECRET)
        agent = await admin.agents.create("writer", spec)
        await admin.credentials.grant("openai", "agents/writer", purposes=["model"])
        _, key = await member_of(admin)
        async with client_of(station, key) as member:
            agent.spec.model = "openai:gpt-5"
            agent = await member.agents.update(agent, ["spec"])
            assert [grant.principal async for grant in admin.credentials.grants("openai")] == ["agents/writer"]
            agent.spec.model, agent.spec.credential = "demo", ""
            await member.agents.update(agent, ["spec"])
        assert [grant async for grant in admin.credentials.grants("openai")] == []
        taken = [event async for event in admin.audit.list(filter='action = "credential.revoke"')]
        assert [dict(event.details) for event in taken] == [{"principal": "agents/writer"}]
