"""The kind `webhook`, from a caller of TaskService to a real receiver on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from stationmaster.v1 import storage_pb2
from stationmaster.v1 import task_pb2 as pb
from stationmaster.v1.storage_pb2_grpc import StorageServiceStub
from stationmaster.v1.task_pb2_grpc import TaskServiceStub
from stationmaster_client.structs import values
from stationmaster_server.resilience.webhooks import read_secret, signed
from stationmaster_server.wire.fields import struct

from tests.fixtures.server import RunningServer, running, server_settings
from tests.resilience.site import SILENCE, Site, answer, redirect, serve
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.task_pb2_grpc import TaskServiceAsyncStub

KEY = bytes(range(7, 39))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
TOKEN = "Bearer a-token-that-nobody-may-see"
FAST = pb.ExecutionOptions(retry=pb.ExecutionRetryPolicy(initial_delay=Duration(nanos=1_000_000)))


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    """The receiver."""
    async with serve() as site:
        yield site


@pytest_asyncio.fixture
async def station(database_url: str, tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A whole server that may send to loopback."""
    settings = server_settings(tmp_path / "data", database_url, outbound={"allow": ["127.0.0.1"]})
    async with running(settings) as server:
        yield server


@pytest_asyncio.fixture
async def tasks(station: RunningServer) -> AsyncIterator[TaskServiceAsyncStub]:
    """TaskService, as the administrator calls it."""
    async with station.channel() as channel:
        yield TaskServiceStub(channel)


def spec(site: Site, **payload: Any) -> pb.ExecutionSpec:
    """A webhook to the site."""
    payload = {"url": f"http://127.0.0.1:{site.port}/hook", "secret": SECRET, **payload}
    return pb.ExecutionSpec(kind="webhook", payload=struct(payload), options=FAST)


async def submit(tasks: TaskServiceAsyncStub, site: Site, **payload: Any) -> str:
    """Submit one."""
    return (await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=spec(site, **payload)))).name


async def ended(tasks: TaskServiceAsyncStub, name: str) -> pb.Execution:
    """An execution at its end."""
    async for _ in tasks.WatchExecution(pb.WatchExecutionRequest(name=name)):
        pass
    return await tasks.GetExecution(pb.GetExecutionRequest(name=name))


async def sent(tasks: TaskServiceAsyncStub, site: Site, **payload: Any) -> pb.Execution:
    """A webhook at its end."""
    return await ended(tasks, await submit(tasks, site, **payload))


def verified(headers: dict[str, str], body: bytes, key: bytes) -> bool:
    """What a receiver does, written from the specification and not from the server."""
    content = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
    expected = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    versions = dict(one.split(",", 1) for one in headers["webhook-signature"].split(" "))
    return hmac.compare_digest(versions["v1"], expected) and abs(time.time() - int(headers["webhook-timestamp"])) < 300


def test_signature_is_that_of_the_specifications_vector() -> None:
    secret = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", datetime.fromtimestamp(1614265330, UTC), body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_receiver_gets_the_body_and_can_verify_who_sent_it(tasks: TaskServiceAsyncStub, site: Site) -> None:
    site.answers = {"/hook": answer(b"taken", status=202)}
    execution = await sent(tasks, site, body={"order": 17, "name": "Größe"}, headers={"Authorization": TOKEN})
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED, execution.message
    assert values(execution.result) == {"status": 202, "body": "taken", "body_truncated": False}
    ((_, headers, body),) = site.requests
    assert json.loads(body) == {"order": 17, "name": "Größe"}
    assert verified(headers, body, KEY)
    assert headers["webhook-id"] == execution.name.removeprefix("executions/")
    assert (headers["authorization"], headers["content-type"]) == (TOKEN, "application/json")


async def test_text_is_sent_as_it_is_and_unsigned_without_a_secret(tasks: TaskServiceAsyncStub, site: Site) -> None:
    payload = {"url": f"http://127.0.0.1:{site.port}/hook", "text": "plain {} text", "method": "PUT"}
    request = pb.SubmitExecutionRequest(execution=pb.ExecutionSpec(kind="webhook", payload=struct(payload)))
    execution = await ended(tasks, (await tasks.SubmitExecution(request)).name)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED
    ((_, headers, body),) = site.requests
    assert body == b"plain {} text"
    assert headers["content-type"].startswith("text/plain")
    assert "webhook-signature" not in headers


async def test_failure_of_the_receiver_is_retried_under_the_same_id(tasks: TaskServiceAsyncStub, site: Site) -> None:
    site.answers = {"/hook": answer(b"no", status=500)}
    name = await submit(tasks, site)

    async def came() -> bool:
        return len(site.requests) >= 1

    await until(came)
    site.answers = {}
    execution = await ended(tasks, name)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED
    assert len({headers["webhook-id"] for _, headers, _ in site.requests}) == 1
    assert [attempt.reason for attempt in execution.failed_attempts][:1] == ["STATUS"]
    assert all(verified(headers, body, KEY) for _, headers, body in site.requests)


@pytest.mark.parametrize(
    ("status", "attempts", "reason"),
    [
        (400, 1, "STATUS"),
        (404, 1, "STATUS"),
        (410, 1, "GONE"),
        (302, 1, "STATUS"),
        (408, 3, "STATUS"),
        (425, 3, "STATUS"),
    ],
)
async def test_only_what_may_pass_is_tried_again(
    tasks: TaskServiceAsyncStub, site: Site, status: int, attempts: int, reason: str
) -> None:
    site.answers = {"/hook": redirect("/elsewhere") if status == 302 else answer(b"never", status=status)}
    execution = await sent(tasks, site)
    assert execution.state == pb.EXECUTION_STATE_FAILED
    assert (len(site.requests), len(execution.failed_attempts)) == (attempts, attempts)
    assert execution.failed_attempts[-1].reason == reason
    assert f"127.0.0.1 answered with status {status}" in execution.message


@pytest.mark.parametrize("status", [429, 503])
async def test_receiver_says_when_to_come_again(tasks: TaskServiceAsyncStub, site: Site, status: int) -> None:
    site.answers = {"/hook": answer(b"", "Retry-After: 3600", status=status)}
    name = await submit(tasks, site)

    async def waits() -> float:
        execution = await tasks.GetExecution(pb.GetExecutionRequest(name=name))
        return execution.run_time.ToSeconds() - time.time() if execution.failed_attempts else 0

    seconds = await until(waits)
    assert seconds is not None
    assert 3000 < seconds < 3601


async def test_receiver_that_keeps_failing_is_left_alone_and_no_attempt_counts(
    tasks: TaskServiceAsyncStub, site: Site
) -> None:
    site.answers = {"/hook": answer(b"no", status=500)}
    for _ in range(2):
        await sent(tasks, site)
    asked = len(site.requests)
    name = await submit(tasks, site)

    async def waits() -> pb.Execution | None:
        execution = await tasks.GetExecution(pb.GetExecutionRequest(name=name))
        queued = execution.state == pb.EXECUTION_STATE_QUEUED
        return execution if queued and execution.run_time.ToSeconds() > time.time() + 2 else None

    execution = await until(waits)
    assert execution is not None
    assert (len(site.requests), len(execution.failed_attempts)) == (asked, 0)


async def test_silent_receiver_costs_no_more_than_the_timeout(tasks: TaskServiceAsyncStub, site: Site) -> None:
    site.answers = {"/hook": SILENCE}
    execution = await sent(tasks, site, timeout_seconds=0.2)
    assert execution.failed_attempts[0].reason in ("TIMEOUT", "CONNECTION")


async def test_private_address_is_refused_for_good(tasks: TaskServiceAsyncStub, site: Site) -> None:
    execution = await sent(tasks, site, url="http://169.254.169.254/latest")
    assert execution.state == pb.EXECUTION_STATE_FAILED
    (attempt,) = execution.failed_attempts
    assert attempt.reason == "ADDRESS_REFUSED"


async def test_long_answer_is_cut_and_what_it_repeats_of_the_secrets_is_masked(
    tasks: TaskServiceAsyncStub, site: Site
) -> None:
    token = TOKEN.partition(" ")[2]
    echo = f"you sent {TOKEN} and {token} and {SECRET} ".encode()
    edge = echo + b"x" * (4096 - len(echo) - 10) + token.encode() + b"y" * 10_000
    site.answers = {"/hook": answer(edge)}
    execution = await sent(tasks, site, headers={"authorization": TOKEN})
    result = values(execution.result)
    assert result["body"].startswith("you sent *** and *** and *** xxx")
    assert result["body_truncated"]
    assert len(result["body"]) <= 4096
    assert token[:8] not in result["body"]


async def test_secrets_are_nowhere_to_be_seen(station: RunningServer, site: Site) -> None:
    """Neither in what the services answer, nor in any table but where they rest, apart from the payload."""
    token = TOKEN.partition(" ")[2]
    site.answers = {"/hook": answer(f"no: {TOKEN} {SECRET}".encode(), status=400)}
    seen: list[Any] = []
    async with station.channel() as channel:
        tasks, storage = TaskServiceStub(channel), StorageServiceStub(channel)
        wanted = spec(site, headers={"Authorization": TOKEN})
        wanted.options.report_formats.append(storage_pb2.REPORT_FORMAT_JSON)
        made = await tasks.SubmitExecution(pb.SubmitExecutionRequest(execution=wanted))
        seen += [made, await ended(tasks, made.name)]
        seen += [event async for event in tasks.WatchExecution(pb.WatchExecutionRequest(name=made.name))]

        async def reported() -> str:
            return next(iter((await tasks.GetExecution(pb.GetExecutionRequest(name=made.name))).reports), "")

        report = await until(reported, seconds=60)
        seen += [one async for one in storage.DownloadReport(storage_pb2.DownloadReportRequest(name=report))]
        task = pb.Task(kind="webhook", payload=wanted.payload)
        request = pb.CreateTaskRequest(task_id="hook", task=task, request_id=str(uuid.uuid4()))
        seen += [await tasks.CreateTask(request), await tasks.CreateTask(request)]
        seen.append(await tasks.GetTask(pb.GetTaskRequest(name="tasks/hook")))
        seen.append(await tasks.SearchTasks(pb.SearchTasksRequest(query="hook")))
        seen.append(await tasks.SearchTasks(pb.SearchTasksRequest(query=token)))
        seen.append(await tasks.RenderTask(pb.RenderTaskRequest(name="tasks/hook")))
    for message in seen:
        text = str(message)
        assert token not in text
        assert SECRET not in text
    assert values(seen[0].payload)["headers"] == {"Authorization": "********"}
    assert values(seen[0].payload)["secret"] == "********"
    places = await _places_of(station.app.database_url, token)
    assert places <= {("tasks", "secrets"), ("executions", "secrets")}


async def _places_of(database_url: str, text: str) -> set[tuple[str, str]]:
    """The columns of the database that have a text."""
    connection = await asyncpg.connect(database_url)
    try:
        columns = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        )
        return {
            (table, column)
            for table, column in columns
            if await connection.fetchval(
                f'SELECT EXISTS (SELECT FROM "{table}" WHERE strpos("{column}"::text, $1) > 0)', text
            )
        }
    finally:
        await connection.close()


async def test_masks_that_come_back_with_an_update_keep_the_secret(tasks: TaskServiceAsyncStub, site: Site) -> None:
    made = await tasks.CreateTask(
        pb.CreateTaskRequest(task_id="hook", task=pb.Task(kind="webhook", payload=spec(site).payload))
    )
    changed = values(made.payload) | {"body": {"changed": True}}
    made.payload.CopyFrom(struct(changed))
    request = pb.UpdateTaskRequest(task=made)
    request.update_mask.paths.append("payload")
    await tasks.UpdateTask(request)
    execution = await ended(tasks, (await tasks.ExecuteTask(pb.ExecuteTaskRequest(name="tasks/hook"))).name)
    assert execution.state == pb.EXECUTION_STATE_SUCCEEDED
    ((_, headers, body),) = site.requests
    assert json.loads(body) == {"changed": True}
    assert verified(headers, body, KEY)


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"secret": "********"}, "secret"),
        ({"secret": "whsec_c2hvcnQtc2VjcmV0"}, "secret"),
        ({"secret": "{{ secret }}"}, "secret"),
        ({"headers": {"Host": "elsewhere"}}, "headers.Host"),
        ({"headers": {"webhook-id": "mine"}}, "headers.webhook-id"),
        ({"headers": {"x": "c2hvcnQ\r\nInjected: yes"}}, "headers.x"),
        ({"url": "ftp://host/"}, "url"),
        ({"url": "http://user:c2hvcnQ@host/"}, "url"),
        ({"method": "GET"}, "method"),
    ],
)
async def test_payload_that_is_wrong_is_refused_by_its_field_without_its_secrets(
    tasks: TaskServiceAsyncStub, site: Site, payload: dict[str, Any], field: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await submit(tasks, site, **payload)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"execution.payload.{field}" in (refused.value.details() or "")
    assert "c2hvcnQ" not in str(refused.value)


async def test_secrets_cannot_come_by_way_of_variables(tasks: TaskServiceAsyncStub, site: Site) -> None:
    url = f"http://127.0.0.1:{site.port}/hook"
    task = pb.Task(
        kind="webhook",
        payload=struct({"url": url, "headers": "{{ headers }}"}),
        variables=[pb.VariableDeclaration(name="headers", type=pb.VARIABLE_TYPE_OBJECT, required=True)],
    )
    await tasks.CreateTask(pb.CreateTaskRequest(task_id="hook", task=task))
    request = pb.ExecuteTaskRequest(name="tasks/hook", variables=struct({"headers": {"authorization": TOKEN}}))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tasks.ExecuteTask(request)
    assert "payload.headers.authorization: a secret cannot come from a variable" in (refused.value.details() or "")
