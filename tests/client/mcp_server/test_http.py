"""Over HTTP everybody is who his own key says, and web pages are nobody."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import mcp
import pytest
from stationmaster_client import Client

from tests.client.cli.program import Program
from tests.client.mcp_server.agent import Agent, colleague, over_http, serving, stranger
from tests.fixtures.server import RunningServer
from tests.rpc.certificates import Authority
from tests.waiting import until

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
}


async def post(url: str, headers: Mapping[str, str], body: object = INITIALIZE) -> httpx2.Response:
    """One request, as anything might send it."""
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.post(url, json=body, headers={**accept, **headers})


async def test_request_without_a_valid_key_is_refused(url: str) -> None:
    for authorization in (
        None,
        "",
        "Bearer",
        "Basic dXNlcjpwYXNz",
        "Bearer sm_wrong_key",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
    ):
        response = await post(url, {} if authorization is None else {"Authorization": authorization})
        assert response.status_code == 401, authorization
        assert response.headers["www-authenticate"] == "Bearer"
        assert "mcp-session-id" not in response.headers


async def test_key_that_is_revoked_is_refused_from_then_on(url: str, server: RunningServer) -> None:
    async with Client.connect(server.target, server.admin_key) as client:
        made = await client.keys.create("mcp")
        async with over_http(url, made.secret) as agent:
            await agent("whoami")
            await client.keys.revoke(made.api_key.name)

            async def refused() -> bool:
                """Every server refuses the key, but not in the same moment."""
                return (await post(url, {"Authorization": f"Bearer {made.secret}"})).status_code == 401

            await until(refused)
            with pytest.raises((mcp.MCPError, httpx2.HTTPError)):
                await agent("whoami")


async def test_each_caller_acts_as_himself(url: str, server: RunningServer) -> None:
    async with (
        over_http(url, server.admin_key) as one,
        over_http(url, await colleague(server)) as two,
        over_http(url, await stranger(server)) as three,
    ):
        users = [(await agent("whoami"))[1] for agent in (one, two, three)]
        assert len({user["user"] for user in users}) == 3
        assert len({user["organization"] for user in users}) == 2
        mine = (await one("create_session", model="demo"))[1]["name"]
        turn = (await one("send_message", session=mine, text="a secret word"))[1]["turn"]
        await _sees_nothing(three, mine, turn)


async def _sees_nothing(agent: Agent, session: str, turn: str) -> None:
    assert (await agent("list_sessions"))[1]["sessions"] == []
    assert (await agent("search_messages", query="secret"))[1]["hits"] == []
    assert (await agent("list_permission_requests"))[1]["permission_requests"] == []
    calls: list[tuple[str, dict[str, Any]]] = [
        ("get_session", {"session": session}),
        ("list_messages", {"session": session}),
        ("read_message", {"session": session, "number": 1}),
        ("send_message", {"session": session, "text": "hello"}),
        ("fork_session", {"session": session}),
        ("terminate_session", {"session": session}),
        ("wait_for_turn", {"turn": turn}),
        ("cancel_turn", {"turn": turn}),
    ]
    for tool, arguments in calls:
        assert "RESOURCE_NOT_FOUND" in await agent.error(tool, **arguments), tool
    with pytest.raises(mcp.MCPError, match="not found"):
        await agent.mcp.read_resource(f"session://{session.removeprefix('sessions/')}")


async def test_scopes_of_the_callers_key_hold(url: str, server: RunningServer) -> None:
    async with over_http(url, await colleague(server, "sessions.read")) as agent:
        assert (await agent("list_sessions"))[1]["sessions"] == []
        refused = await agent.error("create_session", model="demo")
    assert "SCOPE_MISSING" in refused
    assert "whoami" in refused


async def test_session_of_the_protocol_belongs_to_who_opened_it(url: str, server: RunningServer) -> None:
    opened = await post(url, {"Authorization": f"Bearer {server.admin_key}"})
    assert opened.status_code == 200
    session = opened.headers["mcp-session-id"]
    listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    other = {"Authorization": f"Bearer {await stranger(server)}", "Mcp-Session-Id": session}
    assert (await post(url, other, listing)).status_code == 404
    assert (await post(url, {"Mcp-Session-Id": session}, listing)).status_code == 401
    mine = {"Authorization": f"Bearer {server.admin_key}", "Mcp-Session-Id": session}
    assert (await post(url, mine, listing)).status_code == 200


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
async def test_request_of_a_hostile_page_is_refused_even_with_a_key(
    url: str, server: RunningServer, version: str
) -> None:
    for header, value, status in (
        ("Host", "evil.example", 421),
        ("Host", "evil.example:80", 421),
        ("Host", "127.0.0.1.evil.example", 421),
        ("Host", "localhost.evil.example:80", 421),
        ("Origin", "https://evil.example", 403),
        ("Origin", "http://localhost.evil.example", 403),
        ("Origin", "null", 403),
    ):
        sent = {"Authorization": f"Bearer {server.admin_key}", "Mcp-Protocol-Version": version, header: value}
        assert (await post(url, sent)).status_code == status, value


async def test_hosts_and_origins_that_are_allowed_pass(program: Program, server: RunningServer) -> None:
    allowed = ("--allow-host", "mcp.example", "--allow-origin", "https://app.example")
    async with serving(program, *allowed) as url:
        key = {"Authorization": f"Bearer {server.admin_key}"}
        assert (await post(url, {**key, "Host": "mcp.example", "Origin": "https://app.example"})).status_code == 200
        assert (await post(url, {**key, "Host": "localhost:1"})).status_code == 200
        assert (await post(url, {**key, "Host": "other.example"})).status_code == 421


async def test_request_that_is_too_large_is_refused(url: str, server: RunningServer) -> None:
    response = await post(url, {"Authorization": f"Bearer {server.admin_key}"}, {"x": "x" * 5_000_000})
    assert response.status_code == 413


async def test_server_that_is_away_is_503(program: Program) -> None:
    async with serving(Program(program.home, "127.0.0.1:1", program.api_key)) as url:
        response = await post(url, {"Authorization": "Bearer sm_any"})
    assert response.status_code == 503
    assert "cannot be reached" in response.json()["error_description"]


@pytest.mark.parametrize("options", [("--host", "0.0.0.0"), ("--host", "::"), ("--host", "mcp.example")])
async def test_keys_do_not_travel_in_plaintext_unless_allowed(program: Program, options: tuple[str, ...]) -> None:
    refused = await program("mcp", "--http", *options)
    assert refused.code == 2
    assert "--tls-certificate" in refused.err


async def test_http_is_encrypted_with_a_certificate(program: Program, server: RunningServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("mcp")
    async with serving(program, "--tls-certificate", str(certificate), "--tls-key", str(key)) as url:
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=authority.file)
        async with httpx2.AsyncClient(verify=trusted, trust_env=False) as client:
            sent = {"Authorization": f"Bearer {server.admin_key}", "Accept": "application/json, text/event-stream"}
            assert (await client.post(url, json=INITIALIZE, headers=sent)).status_code == 200
    lone = await program("mcp", "--http", "--tls-key", str(key))
    assert (lone.code, "needed together" in lone.err) == (2, True)


async def test_port_that_is_taken_is_told(program: Program, url: str) -> None:
    taken = await program("mcp", "--http", "--port", url.rpartition(":")[2].removesuffix("/mcp"))
    assert taken.code == 2
    assert "cannot listen on 127.0.0.1" in taken.err


async def test_missing_library_is_named(program: Program, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "mcp.py").write_text("raise ModuleNotFoundError(\"No module named 'mcp'\", name='mcp')\n")
    missing = await program.start("mcp", PYTHONPATH=os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")]))
    _, err = await missing.communicate()
    assert missing.returncode == 2
    assert "stationmaster[mcp]" in err.decode()
