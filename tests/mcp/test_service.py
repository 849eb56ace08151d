"""Registered MCP servers: levels, roles, secrets, limits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
from stationmaster.v1 import mcp_pb2 as pb

from tests.contract.world import code_of, reason_of
from tests.fixtures.server import RunningServer, running, server_settings
from tests.mcp.served import (
    BUILT_IN,
    ORGANIZATION,
    USER,
    calling,
    connected,
    member_key,
    named,
    orderly,
    recorded,
    refusal,
    register,
    registration,
    trail,
    unruly,
    update,
)

WEB = "https://8.8.8.8/mcp"


@pytest_asyncio.fixture
async def stub(server: RunningServer) -> AsyncIterator[Any]:
    async with connected(server) as made:
        yield made


@pytest_asyncio.fixture
async def member(server: RunningServer) -> AsyncIterator[Any]:
    """Another user of the same organization, without rights of an administrator."""
    async with connected(server, await member_key(server)) as made:
        yield made


async def listed(stub: Any, **query: Any) -> list[tuple[str, int]]:
    """The servers and their levels, over all pages."""
    found, token = [], ""
    while True:
        page = await stub.ListMcpServers(pb.ListMcpServersRequest(page_token=token, **query))
        found += [(server.name.removeprefix("mcpServers/"), server.level) for server in page.mcp_servers]
        token = page.next_page_token
        if not token:
            return found


async def get(stub: Any, server_id: str, level: pb.McpLevel.ValueType = pb.MCP_LEVEL_UNSPECIFIED) -> pb.McpServer:
    found: pb.McpServer = await stub.GetMcpServer(pb.GetMcpServerRequest(name=f"mcpServers/{server_id}", level=level))
    return found


async def delete(stub: Any, server_id: str, **fields: Any) -> None:
    await stub.DeleteMcpServer(pb.DeleteMcpServerRequest(name=f"mcpServers/{server_id}", **fields))


async def test_a_nearer_server_wins_and_the_farther_one_is_there_again_after_it(stub: Any, member: Any) -> None:
    await register(stub, "monitoring", display_name="theirs", level=ORGANIZATION)
    await register(stub, "monitoring", display_name="mine")
    assert await listed(stub) == [("monitoring", USER)]
    assert sorted(await listed(stub, show_hidden=True)) == [
        ("monitoring", BUILT_IN),
        ("monitoring", ORGANIZATION),
        ("monitoring", USER),
    ]
    assert (await get(stub, "monitoring")).display_name == "mine"
    assert (await get(stub, "monitoring", ORGANIZATION)).display_name == "theirs"
    assert (await get(stub, "monitoring", BUILT_IN)).WhichOneof("transport") is None
    assert await listed(member) == [("monitoring", ORGANIZATION)]
    await delete(stub, "monitoring")
    assert (await get(stub, "monitoring")).display_name == "theirs"
    await delete(stub, "monitoring", level=ORGANIZATION)
    assert await listed(stub) == [("monitoring", BUILT_IN)]


async def test_calls_go_to_the_nearest_server(stub: Any, tmp_path: Path) -> None:
    await register(stub, "twice", stdio=unruly(RECORD=str(tmp_path / "far")), level=ORGANIZATION)
    await register(stub, "twice", stdio=unruly(RECORD=str(tmp_path / "near")))
    await stub.CallTool(calling("ok", "mcpServers/twice"))
    assert len(recorded(tmp_path / "near", "tools/call")) == 1
    assert not (tmp_path / "far").exists()


async def test_a_disabled_server_hides_the_farther_ones_and_answers_no_call(stub: Any, member: Any) -> None:
    await register(stub, level=ORGANIZATION)
    await register(stub, disabled=True)
    refused = await refusal(stub.CallTool(calling("echo")))
    assert refused.code == "FAILED_PRECONDITION"
    assert "mcpServers/orderly is disabled: enable it" in refused.text
    assert (await listed(stub, filter="enabled = false")) == [("orderly", USER)]
    assert (await member.CallTool(calling("echo"))).content
    await update(stub, "orderly", ["disabled"], disabled=False)
    assert (await stub.CallTool(calling("echo"))).content


async def test_what_is_a_users_own_nobody_else_sees(stub: Any, member: Any) -> None:
    await register(stub)
    assert ("orderly", USER) not in await listed(member, show_hidden=True)
    calls: list[Any] = [get(member, "orderly"), delete(member, "orderly"), member.CallTool(calling("echo"))]
    for call in calls:
        assert (await refusal(call)).code == "NOT_FOUND"


async def test_commands_and_the_organizations_servers_need_an_administrator(stub: Any, member: Any) -> None:
    web = pb.McpHttp(url=WEB)
    for call in (register(member), register(member, http=web, level=ORGANIZATION)):
        assert (await refusal(call)).reason == "ROLE_INSUFFICIENT"
    await register(member, "mine", http=web)
    assert (await refusal(update(member, "mine", stdio=orderly()))).reason == "ROLE_INSUFFICIENT"
    await register(stub, "ours", http=web, level=ORGANIZATION)
    calls: list[Any] = [update(member, "ours", display_name="x"), delete(member, "ours")]
    for call in calls:
        assert (await refusal(call)).reason == "ROLE_INSUFFICIENT"
    await delete(member, "mine")
    assert (await get(stub, "ours")).display_name == ""


async def test_built_in_servers_are_neither_registered_nor_changed_nor_deleted(stub: Any) -> None:
    calls: list[Any] = [
        register(stub, "mine", level=BUILT_IN),
        update(stub, "monitoring", display_name="x"),
        delete(stub, "monitoring"),
    ]
    for call in calls:
        assert (await refusal(call)).code == "FAILED_PRECONDITION"
    assert (await get(stub, "monitoring")).level == BUILT_IN


async def test_only_allowed_commands_and_addresses_are_registered(stub: Any) -> None:
    shell = pb.McpStdio(command="/bin/sh")
    loopback = pb.McpHttp(url="http://127.0.0.1:1/mcp")
    await register(stub, "web", http=pb.McpHttp(url=WEB))
    for call in (register(stub, stdio=shell), update(stub, "web", stdio=shell)):
        assert (await refusal(call)).reason == "COMMAND_REFUSED"
    for call in (register(stub, http=loopback), update(stub, "web", http=loopback)):
        assert (await refusal(call)).reason == "ADDRESS_REFUSED"
    assert (await get(stub, "web")).http.url == WEB


async def test_ids_are_free_once_and_never_those_of_our_own_tools(stub: Any) -> None:
    await register(stub)
    for name in ("orderly", "files"):
        for only in (True, False):
            refused = await refusal(register(stub, name, validate_only=only))
            assert refused.code == "ALREADY_EXISTS"
            assert refused.text.startswith("tool 'files.*'" if name == "files" else "McpServer 'mcpServers/orderly'")


async def test_a_trial_changes_nothing(server: RunningServer, stub: Any) -> None:
    request = registration(validate_only=True, request_id=str(uuid4()))
    for _ in range(2):
        tried = await stub.RegisterMcpServer(request)
        assert tried.name == "mcpServers/orderly"
    assert (await refusal(get(stub, "orderly"))).code == "NOT_FOUND"
    await register(stub)
    changed = pb.McpServer(name="mcpServers/orderly", display_name="a")
    trial = pb.UpdateMcpServerRequest(mcp_server=changed, validate_only=True, request_id=str(uuid4()))
    for _ in range(2):
        assert (await stub.UpdateMcpServer(trial)).display_name == "a"
    assert (await get(stub, "orderly")).display_name == ""
    assert await trail(server, action="mcp_server.update") == []


async def test_a_stale_etag_is_refused(stub: Any) -> None:
    first = await register(stub)
    second = await update(stub, "orderly", display_name="a", etag=first.etag)
    assert second.etag != first.etag
    for call in (
        update(stub, "orderly", display_name="b", etag=first.etag),
        delete(stub, "orderly", etag=first.etag),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert (await get(stub, "orderly")).display_name == "a"
    await delete(stub, "orderly", etag=second.etag)


async def test_only_masked_fields_change(stub: Any) -> None:
    await register(stub, display_name="one", description="two", allowed_tools=["echo"])
    changed = await update(stub, "orderly", ["description", "allowed_tools"], display_name="lost", description="three")
    assert (changed.display_name, changed.description, list(changed.allowed_tools)) == ("one", "three", [])
    refused = await refusal(update(stub, "orderly", ["level"], level=ORGANIZATION))
    assert refused.reason == "INVALID_UPDATE_MASK"


async def test_the_limits_of_time_have_defaults(stub: Any) -> None:
    made = await register(stub)
    assert (made.call_timeout.seconds, made.connect_timeout.seconds) == (120, 30)


async def test_secrets_never_come_back(server: RunningServer, stub: Any) -> None:
    stdio = orderly(TOKEN="hush-hush", OTHER="hush-hush")
    made = await register(stub, stdio=stdio)
    web = await register(stub, "web", http=pb.McpHttp(url=WEB, headers={"Authorization": "Bearer hush-hush"}))
    assert dict(made.stdio.environment) == {"TOKEN": "", "OTHER": ""}
    assert dict(web.http.headers) == {"Authorization": ""}
    shown = [made, web, await get(stub, "orderly"), await stub.ListMcpServers(pb.ListMcpServersRequest())]
    shown += [await update(stub, "orderly", display_name="a"), *await trail(server)]
    repeated = registration("again", stdio=stdio, request_id=str(uuid4()))
    shown += [await stub.RegisterMcpServer(repeated), await stub.RegisterMcpServer(repeated)]
    assert not [message for message in shown if "hush-hush" in str(message)]


async def test_an_empty_value_keeps_the_secret_and_a_name_left_out_drops_it(stub: Any, tmp_path: Path) -> None:
    record = tmp_path / "record"
    await register(stub, stdio=unruly(RECORD=str(record), SECRET="x"))
    changed = await update(stub, "orderly", stdio=unruly(RECORD=""))
    assert dict(changed.stdio.environment) == {"RECORD": ""}
    await stub.CallTool(calling("ok"))
    assert len(recorded(record, "tools/call")) == 1


@pytest.mark.parametrize("mask", [None, ["http"]])
async def test_secrets_are_not_sent_elsewhere(stub: Any, mask: list[str] | None) -> None:
    await register(stub, "web", http=pb.McpHttp(url=WEB, headers={"Authorization": "Bearer hush-hush"}))
    elsewhere = pb.McpHttp(url="https://1.1.1.1/mcp", headers={"Authorization": ""})
    refused = await refusal(update(stub, "web", mask, http=elsewhere))
    assert refused.code == "INVALID_ARGUMENT"
    assert "hush" not in refused.text
    assert (await get(stub, "web")).http.url == WEB
    beside = pb.McpHttp(url="https://8.8.8.8/other", headers={"Authorization": ""})
    assert (await update(stub, "web", mask, http=beside)).http.url == beside.url


async def test_secrets_are_not_given_to_another_command(stub: Any) -> None:
    await register(stub, stdio=orderly(TOKEN="hush-hush"))
    other = pb.McpStdio(command=sys.executable, arguments=["-c", "other"], environment={"TOKEN": ""})
    assert (await refusal(update(stub, "orderly", stdio=other))).code == "INVALID_ARGUMENT"


async def test_there_are_a_hundred_servers_and_no_more_when_many_race(stub: Any) -> None:
    async def one(number: int) -> str:
        try:
            await register(stub, f"s{number}")
        except grpc.aio.AioRpcError as error:
            return f"{code_of(error)} {reason_of(error)}"
        return "made"

    outcomes = await asyncio.gather(*(one(number) for number in range(110)))
    assert sorted(set(outcomes)) == ["RESOURCE_EXHAUSTED LIMIT_REACHED", "made"]
    assert outcomes.count("made") == 100
    assert len(await listed(stub, filter="level = USER", page_size=30)) == 100


@pytest.mark.parametrize(
    "order_by", ["server_id", "display_name desc", "level", "enabled", "create_time desc", "update_time"]
)
async def test_every_order_gives_each_server_once_over_pages(stub: Any, order_by: str) -> None:
    await register(stub)
    await register(stub, "other")
    await register(stub, "monitoring", display_name="b")
    names = await listed(stub, order_by=order_by, page_size=1, show_hidden=True)
    assert sorted(names) == [("monitoring", BUILT_IN), ("monitoring", USER), ("orderly", USER), ("other", USER)]


async def test_lists_are_filtered(stub: Any) -> None:
    await register(stub, display_name="Orderly")
    await register(stub, "ours", level=ORGANIZATION)
    assert await listed(stub, filter="level = ORGANIZATION") == [("ours", ORGANIZATION)]
    assert await listed(stub, filter='display_name = "Orderly"') == [("orderly", USER)]
    assert await listed(stub, filter="level = BUILT_IN") == [("monitoring", BUILT_IN)]
    wrong = [{"filter": "secrets = 1"}, {"filter": "(("}, {"order_by": "secrets"}]
    reasons = [(await refusal(listed(stub, **query))).reason for query in wrong]
    assert reasons == ["INVALID_FILTER", "INVALID_FILTER", "INVALID_ORDER_BY"]


async def test_a_repeat_is_answered_as_the_first_time_whatever_happened_since(stub: Any) -> None:
    request = registration(display_name="one", request_id=str(uuid4()))
    first = await stub.RegisterMcpServer(request)
    await update(stub, "orderly", display_name="two")
    assert await stub.RegisterMcpServer(request) == first
    deletion = pb.DeleteMcpServerRequest(name=first.name, request_id=str(uuid4()))
    for _ in range(2):
        await stub.DeleteMcpServer(deletion)
    assert await stub.RegisterMcpServer(request) == first
    assert (await refusal(get(stub, "orderly"))).code == "NOT_FOUND"


async def test_a_check_is_repeated_by_its_request_id_and_refused_with_another_body(stub: Any, tmp_path: Path) -> None:
    await register(stub, stdio=unruly(RECORD=str(tmp_path / "record")))
    await register(stub, "other")
    request = pb.CheckMcpServerRequest(name="mcpServers/orderly", request_id=str(uuid4()))
    first = await stub.CheckMcpServer(request)
    assert (first.healthy, first.info.name) == (True, "misbehaving")
    pings = len(recorded(tmp_path / "record", "ping"))
    assert await stub.CheckMcpServer(request) == first
    assert len(recorded(tmp_path / "record", "ping")) == pings
    request.name = "mcpServers/other"
    assert (await refusal(stub.CheckMcpServer(request))).reason == "REQUEST_ID_REUSED"


async def test_a_check_of_what_does_not_run_is_an_answer_and_in_the_trail(server: RunningServer, stub: Any) -> None:
    await register(stub, stdio=unruly("die_at_start"))
    checked = await stub.CheckMcpServer(pb.CheckMcpServerRequest(name="mcpServers/orderly"))
    assert not checked.healthy
    assert "exit code 3; it wrote: no configuration found" in checked.problem
    (event,) = await trail(server, action="mcp_server.check")
    assert event.resource == "mcpServers/orderly"


async def test_every_change_is_in_the_trail_once(server: RunningServer, stub: Any) -> None:
    await stub.RegisterMcpServer(registration(), metadata=named("one"))
    request = pb.UpdateMcpServerRequest(mcp_server=pb.McpServer(name="mcpServers/orderly", display_name="a"))
    await stub.UpdateMcpServer(request, metadata=named("two"))
    await stub.DeleteMcpServer(pb.DeleteMcpServerRequest(name="mcpServers/orderly"), metadata=named("three"))
    events = [await trail(server, name) for name in ("one", "two", "three")]
    assert [[event.action for event in found] for found in events] == [
        ["mcp_server.register"],
        ["mcp_server.update"],
        ["mcp_server.delete"],
    ]
    assert {event.resource for found in events for event in found} == {"mcpServers/orderly"}


async def test_calls_begun_after_a_change_use_the_new_configuration(stub: Any) -> None:
    await register(stub)
    assert (await stub.CallTool(calling("echo"))).content
    await update(stub, "orderly", stdio=unruly())
    assert (await stub.CallTool(calling("ok"))).content[0].text == "fine"
    assert (await refusal(stub.CallTool(calling("echo")))).code == "NOT_FOUND"


async def test_another_server_process_uses_what_was_registered_here(database_url: str, tmp_path: Path) -> None:
    async with (
        running(server_settings(tmp_path / "one", database_url)) as one,
        running(server_settings(tmp_path / "two", database_url)) as two,
    ):
        key = one.admin_key
        async with connected(one) as here, connected(two, key) as there:
            await register(here)
            assert (await there.CallTool(calling("echo"))).content
            await update(here, "orderly", stdio=unruly())
            assert (await there.CallTool(calling("ok"))).content[0].text == "fine"
