"""A whole server: it starts, is asked, loses its database, and stops."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import httpx2
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2
from stationmaster.v1 import audit_pb2, audit_pb2_grpc, identity_pb2, identity_pb2_grpc, session_pb2, session_pb2_grpc
from stationmaster_client.transparency import VerifierKey, open_checkpoint
from stationmaster_server.app.local import Running, published, running_server
from stationmaster_server.app.root import App
from stationmaster_server.app.transport import UNCOUNTED
from stationmaster_server.config import StartupError
from stationmaster_server.db.embedded.server import Membership
from stationmaster_server.rpc.method import describe

from tests.fixtures.server import HealthStub, RunningServer, running, server_settings
from tests.rpc.served import reason_of
from tests.waiting import until

ROOMS = ("Session", "Agent", "Identity", "Audit", "Mcp", "Storage", "Prompt", "Task", "Credential", "Maintenance")
SERVICES = {f"stationmaster.v1.{name}Service" for name in ROOMS}


async def test_the_first_start_makes_an_administrator_that_may_call(server: RunningServer) -> None:
    async with server.channel() as channel:
        who = await identity_pb2_grpc.IdentityServiceStub(channel).WhoAmI(identity_pb2.WhoAmIRequest())
    assert who.user.role == identity_pb2.ROLE_OWNER
    assert stat.S_IMODE(server.app.key_file.stat().st_mode) == 0o600


async def test_the_first_start_makes_a_key_that_signs_the_audit_trail(server: RunningServer) -> None:
    async def checkpoint() -> audit_pb2.AuditCheckpoint | None:
        async with server.channel() as channel:
            try:
                return await audit_pb2_grpc.AuditServiceStub(channel).GetCheckpoint(audit_pb2.GetCheckpointRequest())
            except grpc.aio.AioRpcError as error:
                if reason_of(error) != "CHECKPOINT_PENDING":
                    raise
                return None

    signed = await until(checkpoint)
    assert signed is not None
    key = VerifierKey.parse(signed.keys[0].verifier_key)
    assert open_checkpoint(signed.note, [key]).size == signed.size
    assert stat.S_IMODE((server.settings.data_folder / "audit.keys").stat().st_mode) == 0o600


async def test_settings_of_the_audit_trail_that_cannot_be_stop_the_start(database_url: str, tmp_path: Path) -> None:
    for wrong in ({"copies": "nowhere://x"}, {"witnesses": [{"url": "http://127.0.0.1:1", "key": "x"}]}):
        with pytest.raises(StartupError, match=r"setting audit\."):
            await App(server_settings(tmp_path, database_url, audit=wrong)).__aenter__()


async def test_without_a_key_only_health_and_reflection_answer(server: RunningServer) -> None:
    async with server.channel(None) as channel:
        listed = await HealthStub(channel).List(health_pb2.HealthListRequest())
        assert set(listed.statuses) == {"", *SERVICES}
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await identity_pb2_grpc.IdentityServiceStub(channel).WhoAmI(identity_pb2.WhoAmIRequest())
    assert reason_of(raised.value) == "CREDENTIALS_MISSING"


async def test_the_command_line_finds_the_server_while_it_runs(database_url: str, tmp_path: Path) -> None:
    async with running(server_settings(tmp_path, database_url)) as server:
        assert json.loads((tmp_path / "server.json").read_text())["target"] == server.target
    assert not (tmp_path / "server.json").exists()


def test_a_second_server_of_a_folder_leaves_the_first_to_be_found(tmp_path: Path) -> None:
    settings, address = server_settings(tmp_path, None), tmp_path / "server.json"
    first = {"target": "127.0.0.1:7", "pid": os.getppid(), "admin_ports": [8]}
    address.write_text(json.dumps(first))
    with published(settings, 9, (10, 0)):
        assert json.loads(address.read_text())["target"] == "127.0.0.1:9"
        assert running_server(tmp_path) == Running(os.getpid(), 9, (10,))
    assert json.loads(address.read_text()) == first
    with published(settings, 9):
        address.write_text(json.dumps(first))  # a newer one, which outlives this one
    assert json.loads(address.read_text()) == first


async def test_the_admin_port_is_looked_at_before_any_work_is_done(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=rf"{port} is in use by another program; .*admin\.port"):
            await App(server_settings(tmp_path, None, admin={"port": port})).__aenter__()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - a moment, in a test


async def test_who_has_used_up_the_calls_per_hour_can_change_that(server: RunningServer) -> None:
    def quota(calls: int) -> identity_pb2.SetQuotaRequest:
        message = identity_pb2.Quota(name=name, max_calls_per_hour=calls)
        return identity_pb2.SetQuotaRequest(quota=message, update_mask=FieldMask(paths=["max_calls_per_hour"]))

    assert all(describe(*path[1:].split("/")).scope is not None for path in UNCOUNTED)  # a KeyError: renamed
    async with server.channel() as channel:
        stub, sessions = identity_pb2_grpc.IdentityServiceStub(channel), session_pb2_grpc.SessionServiceStub(channel)
        name = (await stub.WhoAmI(identity_pb2.WhoAmIRequest())).user.name + "/quota"
        await stub.SetQuota(quota(0))

        async def answer() -> str:
            try:
                await sessions.ListSessions(session_pb2.ListSessionsRequest())
            except grpc.aio.AioRpcError as error:
                return reason_of(error)
            return ""

        async def refused() -> bool:
            return await answer() == "QUOTA_EXCEEDED"

        async def served() -> bool:
            return not await answer()

        await until(refused)
        await stub.WhoAmI(identity_pb2.WhoAmIRequest())
        await stub.GetQuota(identity_pb2.GetQuotaRequest(name=name))
        await stub.GetQuotaUsage(identity_pb2.GetQuotaUsageRequest(name=name))
        await stub.SetQuota(quota(100))
        await until(served)


async def test_operators_read_metrics_and_health_over_http(server: RunningServer) -> None:
    async with server.channel() as channel:
        await identity_pb2_grpc.IdentityServiceStub(channel).WhoAmI(identity_pb2.WhoAmIRequest())
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.app.admin_port}") as http:
        assert (await http.get("/healthz")).status_code == 200

        async def ready() -> bool:
            answer = await http.get("/readyz")
            return (answer.status_code, answer.json()) == (200, {"ready": True, "missing": {}})

        await until(ready)
        metrics = (await http.get("/metrics")).text
        assert 'stationmaster_rpc_handled_total{code="OK",method="WhoAmI"' in metrics
        for pool in ("cpu", "blocking"):
            assert f'stationmaster_{pool}_pool_calls{{state="running"}} 0.0' in metrics
            assert f'stationmaster_{pool}_pool_ended_total{{how="timed_out"}} 0.0' in metrics
        assert (await http.get("/nothing")).status_code == 404
        assert (await http.post("/metrics")).status_code == 405


async def test_a_lost_database_is_not_serving_and_unavailable_until_it_is_back(
    data_folder: Path, tmp_path: Path
) -> None:
    member = await asyncio.to_thread(Membership.join, data_folder)
    settings = server_settings(tmp_path, member.cluster.url())
    async with AsyncExitStack() as stack:
        stack.callback(lambda: member.leave())
        server = await stack.enter_async_context(running(settings))
        channel = await stack.enter_async_context(server.channel())
        health = HealthStub(channel)
        sessions = session_pb2_grpc.SessionServiceStub(channel)

        async def status(wanted: int) -> None:
            async def reached() -> bool:
                return all(
                    [
                        (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == wanted
                        for name in ("", "stationmaster.v1.SessionService")
                    ]
                )

            await until(reached)

        await sessions.ListSessions(session_pb2.ListSessionsRequest())
        await asyncio.to_thread(member.leave)  # the last one out stops PostgreSQL
        await status(health_pb2.HealthCheckResponse.NOT_SERVING)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await sessions.ListSessions(session_pb2.ListSessionsRequest(), timeout=20)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(raised.value) == "DATABASE_UNAVAILABLE"
        member = await asyncio.to_thread(Membership.join, data_folder)
        await status(health_pb2.HealthCheckResponse.SERVING)
        await sessions.ListSessions(session_pb2.ListSessionsRequest())


async def test_a_session_streams_a_reply_through_the_whole_server(server: RunningServer) -> None:
    async with server.channel() as channel:
        sessions = session_pb2_grpc.SessionServiceStub(channel)
        request = session_pb2.CreateSessionRequest()
        request.session.spec.model = "demo"
        session = await sessions.CreateSession(request)
        message = session_pb2.SendMessageRequest(session=session.name, text="Hello!")
        events = [event async for answer in sessions.SendMessage(message) for event in answer.events]
    assert [event.sequence for event in events] == list(range(events[0].sequence, events[0].sequence + len(events)))
    assert events[-1].WhichOneof("payload") == "turn_finished"


async def test_two_servers_share_one_database(database_url: str, tmp_path: Path) -> None:
    settings = [server_settings(tmp_path / name, database_url) for name in ("one", "two")]
    async with running(settings[0]) as one, running(settings[1]) as two:
        assert two.admin_key == ""  # the first server made the only one
        async with one.channel() as first, two.channel(one.admin_key) as second:
            ask = identity_pb2.WhoAmIRequest()
            stubs = [identity_pb2_grpc.IdentityServiceStub(channel) for channel in (first, second)]
            users = {(await stub.WhoAmI(ask)).user.name for stub in stubs}
            for name in ("a", "b"):
                await stubs[0].CreateApiKey(
                    identity_pb2.CreateApiKeyRequest(api_key=identity_pb2.ApiKey(display_name=name))
                )
            page = await stubs[0].ListApiKeys(identity_pb2.ListApiKeysRequest(page_size=2))
            rest = await stubs[1].ListApiKeys(
                identity_pb2.ListApiKeysRequest(page_size=2, page_token=page.next_page_token)
            )
    assert len(users) == 1
    assert len({key.name for key in (*page.api_keys, *rest.api_keys)}) == 3  # one server reads on where another stopped


async def test_stopping_leaves_no_task_behind(database_url: str, tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with running(server_settings(tmp_path, database_url)):
        pass

    async def ended() -> bool:
        return not {task for task in asyncio.all_tasks() - before if not task.done()}

    await until(ended)
