"""The webhook on permission requests, delivered by the whole server to a real receiver on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from stationmaster.v1 import agent_pb2, event_pb2, identity_pb2, session_pb2
from stationmaster_client import Client
from stationmaster_client.errors import FailedPrecondition, InvalidArgument

from tests.fixtures.server import RunningServer, running, server_settings
from tests.resilience.site import Site, answer, redirect, serve
from tests.waiting import until

WRITE = '/tool files.write {"path": "a.txt", "content": "one"}'
SECRET = bytes(range(7, 39))
LOOPBACK = ("127.0.0.0/8",)


@asynccontextmanager
async def told(
    database_url: str, folder: Path, *, allow: tuple[str, ...] = LOOPBACK
) -> AsyncIterator[tuple[RunningServer, Client, Site]]:
    """A server whose organization wants to be told, its client, and the receiver, to which `allow` lets it go later."""
    async with serve() as site:
        settings = server_settings(folder, database_url, outbound={"allow": list(LOOPBACK)})
        async with running(settings) as server, Client.connect(server.target, server.admin_key) as client:
            await listen(client, f"http://127.0.0.1:{site.port}/hook?token=abc")
            if allow == LOOPBACK:
                yield server, client, site
                return
        settings = server_settings(folder, database_url, outbound={"allow": list(allow)})
        async with running(settings) as server, Client.connect(server.target, server.admin_key) as client:
            yield server, client, site


async def listen(client: Client, url: str) -> None:
    """Name a receiver."""
    who = await client.whoami()
    secret = f"whsec_{base64.b64encode(SECRET).decode()}"
    hook = identity_pb2.PermissionWebhook(url=url, secret=secret)
    await client.organizations.update(
        identity_pb2.Organization(name=who.organization.name, permission_webhook=hook), ["permission_webhook"]
    )


async def test_a_url_that_cannot_be_read_is_refused_at_once(database_url: str, tmp_path: Path) -> None:
    async with told(database_url, tmp_path) as (_, client, _):
        organization = (await client.whoami()).organization
        organization.permission_webhook.url = "https://[::1"
        with pytest.raises(InvalidArgument, match="url"):
            await client.organizations.update(organization, ["permission_webhook"])


async def ask(client: Client, text: str = WRITE) -> session_pb2.PermissionRequest:
    """Let a turn ask for a permission."""
    spec = agent_pb2.AgentSpec(model="demo", tools=["files.*"])
    session = await client.sessions.create(spec=spec)
    async with client.sessions.send(session.name, text, stop_at_permission=True) as sent:
        async for _ in sent:
            pass
    (request,) = [item async for item in client.permissions.list(session.name)]
    return request


async def delivered(site: Site, count: int) -> list[tuple[str, dict[str, str], bytes]]:
    async def came() -> bool:
        return len(site.requests) >= count

    await until(came)
    return site.requests


async def item(server: RunningServer, request: session_pb2.PermissionRequest, state: str) -> dict[str, Any]:
    """The work item of a request, once it is in a state."""
    connection = await asyncpg.connect(server.app.database_url)
    try:

        async def reached() -> dict[str, Any] | None:
            row = await connection.fetchrow(
                "SELECT * FROM work_items WHERE item_id = $1 AND state = $2", request.name.rpartition("/")[2], state
            )
            return None if row is None else dict(row)

        found = await until(reached)
    finally:
        await connection.close()
    assert found is not None
    return found


async def test_a_receiver_is_told_and_can_verify_who_tells_it(database_url: str, tmp_path: Path) -> None:
    async with told(database_url, tmp_path / "data") as (_, client, site):
        request = await ask(client)
        ((path, headers, body),) = await delivered(site, 1)
    assert path == "/hook?token=abc"
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(SECRET, content, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 300
    assert headers["webhook-id"] == request.name.rpartition("/")[2]
    document = json.loads(body)
    assert document["type"] == "permission.requested"
    data = document["data"]
    assert (data["permission_request"], data["session"]) == (request.name, request.name.partition("/perm")[0])
    assert (data["tool"], data["arguments"]) == ("files.write", {"path": "a.txt", "content": "one"})
    assert data["turn"].startswith(data["session"] + "/turns/")
    assert data["expire_time"]


async def test_a_delivery_that_failed_is_repeated_under_the_same_id(database_url: str, tmp_path: Path) -> None:
    async with told(database_url, tmp_path / "data") as (server, client, site):
        site.answers = {"/hook?token=abc": answer(b"no", status=500)}
        request = await ask(client)
        await delivered(site, 1)
        site.answers = {}
        deliveries = await delivered(site, 2)
        found = await item(server, request, "SUCCEEDED")
    assert len({headers["webhook-id"] for _, headers, _ in deliveries}) == 1
    assert len({body for _, _, body in deliveries}) == 1
    (error,) = json.loads(found["errors"])
    assert "500" in error["error"]
    assert "token" not in found["errors"]


async def test_a_receiver_that_is_silent_does_not_hold_up_the_turn(database_url: str, tmp_path: Path) -> None:
    async with told(database_url, tmp_path / "data") as (_, client, site):
        site.answers = {"/hook?token=abc": b""}
        request = await ask(client)
        await client.permissions.allow(request.name)

        async def over() -> bool:
            turns = [turn async for turn in client.sessions.turns(request.name.partition("/perm")[0])]
            return bool(turns[0].state == event_pb2.TURN_STATE_COMPLETED)

        await until(over)


@pytest.mark.parametrize("refused", ["address", "redirect", "gone"])
async def test_what_is_refused_is_seen_in_the_errors_of_its_item(
    refused: str, database_url: str, tmp_path: Path
) -> None:
    allow = () if refused == "address" else LOOPBACK
    async with told(database_url, tmp_path / "data", allow=allow) as (server, client, site):
        site.answers = {"/hook?token=abc": redirect("/elsewhere") if refused == "redirect" else answer(b"", status=410)}
        request = await ask(client)
        if refused == "redirect":

            async def failed() -> bool:
                return bool(json.loads((await item(server, request, "QUEUED"))["errors"]))

            await until(failed)
            assert {path for path, _, _ in site.requests} == {"/hook?token=abc"}, "it is not followed"
            return
        found = await item(server, request, "DEAD")
        (error,) = json.loads(found["errors"])
    assert error["reason"] == ("ADDRESS_REFUSED" if refused == "address" else "STATUS")
    assert len(site.requests) == (0 if refused == "address" else 1)


async def test_arguments_that_are_too_large_are_left_out(database_url: str, tmp_path: Path) -> None:
    async with told(database_url, tmp_path / "data") as (_, client, site):
        await ask(client, '/tool files.write {"path": "a.txt", "content": "%s"}' % ("x" * 20_000))
        ((_, _, body),) = await delivered(site, 1)
    data = json.loads(body)["data"]
    assert (data["arguments"], data["arguments_truncated"]) == ({}, True)


async def test_without_a_webhook_nothing_is_queued(database_url: str, tmp_path: Path) -> None:
    async with told(database_url, tmp_path / "data") as (server, client, site):
        who = await client.whoami()
        await client.organizations.update(identity_pb2.Organization(name=who.organization.name), ["permission_webhook"])
        await ask(client)
        connection = await asyncpg.connect(server.app.database_url)
        count = await connection.fetchval("SELECT count(*) FROM work_items WHERE kind = 'permission_webhook'")
        await connection.close()
    assert (count, site.requests) == (0, [])


async def test_a_receiver_that_keeps_failing_is_left_alone_and_no_attempt_counts_meanwhile(
    database_url: str, tmp_path: Path
) -> None:
    async with told(database_url, tmp_path / "data") as (server, client, site):
        site.answers = {"/hook?token=abc": answer(b"no", status=503)}
        for _ in range(5):
            await ask(client)
        await delivered(site, 5)
        await ask(client)
        connection = await asyncpg.connect(server.app.database_url)

        async def waiting() -> bool:
            """Whether one waits for longer than the policy would have it wait after so few attempts."""
            return bool(
                await connection.fetchval(
                    """SELECT count(*) FROM work_items WHERE kind = 'permission_webhook' AND state = 'QUEUED'
                       AND attempt = jsonb_array_length(errors) AND attempt <= 1
                       AND run_at > now() + interval '4 seconds'"""
                )
            )

        await until(waiting)
        failed = await connection.fetchval("SELECT sum(jsonb_array_length(errors)) FROM work_items")
        await connection.close()
    assert failed <= len(site.requests) < 10


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/hook", "https://[::1]/hook", "http://169.254.169.254/latest"])
async def test_a_receiver_to_which_this_server_would_not_go_is_refused_when_it_is_named(
    url: str, database_url: str, tmp_path: Path
) -> None:
    settings = server_settings(tmp_path / "data", database_url)
    async with running(settings) as server, Client.connect(server.target, server.admin_key) as client:
        with pytest.raises(FailedPrecondition, match=r"outbound\.allow") as raised:
            await listen(client, url)
        assert raised.value.reason == "ADDRESS_REFUSED"
        assert not (await client.whoami()).organization.permission_webhook.url
