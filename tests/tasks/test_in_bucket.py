"""Kinds of tasks that use the files of sessions, where these are in object storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest_asyncio
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client import Client

from tests.fixtures.server import RunningServer, running, server_settings
from tests.storage.desk import Desk
from tests.storage.places import S3Site
from tests.storage.wire import between
from tests.tasks.aged import cleaned
from tests.tasks.process.calls import processed
from tests.tasks.test_export import exported
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub


@pytest_asyncio.fixture
async def station(database_url: str, tmp_path: Path, bucket: S3Site) -> AsyncIterator[RunningServer]:
    async with running(server_settings(tmp_path / "data", database_url, storage=bucket.settings())) as server:
        yield server


async def test_documents_and_cleanup_use_the_bucket_and_an_export_into_a_session_says_that_it_cannot(
    station: RunningServer, bucket: S3Site
) -> None:
    async with station.channel() as channel, Client.connect(station.target, station.admin_key) as client:
        tasks: TaskServiceAsyncStub = TaskServiceStub(channel)
        desk, other = await Desk.open(channel), await Desk.open(channel)
        await desk.put("notes/plan.md", b"# Plan\n\nBuild it.\n")
        await other.put("kept", b"x")
        await processed(tasks, session=desk.session, path="notes/plan.md")
        failed = await exported(tasks, what=["sessions"], session=desk.session)
        assert failed.state == pb.EXECUTION_STATE_FAILED
        assert "object storage" in failed.message
        assert (await exported(tasks, what=["sessions"])).state == pb.EXECUTION_STATE_SUCCEEDED
        await client.sessions.terminate(desk.session)
        connection = await asyncpg.connect(station.app.database_url)
        await connection.execute("UPDATE sessions SET updated_at = updated_at - interval '40 days'")
        await connection.close()
        assert await bucket.everything() == {"notes/plan.md", "kept"}
        assert (await cleaned(tasks, "workspaces", dry_run=True))["workspaces"] == 1
        assert (await cleaned(tasks, "workspaces"))["workspaces"] == 1
        assert await bucket.everything() == {"kept"}


async def test_a_cleanup_asks_the_bucket_for_no_workspace_that_is_known_to_be_empty(
    database_url: str, tmp_path: Path, bucket: S3Site
) -> None:
    async with between(bucket.endpoint) as wire:
        settings = server_settings(
            tmp_path / "data", database_url, storage=replace(bucket, endpoint=wire.url).settings()
        )
        async with running(settings) as station, station.channel() as channel:
            tasks: TaskServiceAsyncStub = TaskServiceStub(channel)
            desks = [await Desk.open(channel) for _ in range(4)]
            await desks[0].put("a", b"x")
            async with Client.connect(station.target, station.admin_key) as client:
                for desk in desks:
                    await client.sessions.terminate(desk.session)
            connection = await asyncpg.connect(station.app.database_url)
            await connection.execute("UPDATE sessions SET updated_at = updated_at - interval '40 days'")

            def asked() -> set[str]:
                ids = [desk.session.partition("/")[2] for desk in desks]
                return {one for one in ids if any(one in line for line in wire.lines)}

            async def counted() -> bool:
                return not await connection.fetchval("SELECT count(*) FROM workspaces WHERE measure_at IS NOT NULL")

            await until(counted, seconds=60)
            wire.lines.clear()
            assert (await cleaned(tasks, "workspaces", dry_run=True))["workspaces"] == 1
            assert (await cleaned(tasks, "workspaces"))["workspaces"] == 1
            assert asked() == {desks[0].session.partition("/")[2]}
            assert await bucket.everything() == set()
            await until(counted, seconds=60)
            wire.lines.clear()
            assert "workspaces" not in await cleaned(tasks, "workspaces")
            assert asked() == set()
            await connection.close()
