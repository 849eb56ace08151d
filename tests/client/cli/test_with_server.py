"""The command line against the real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.cli.program import Program, Result
from tests.client.cli.terminal import at_terminal
from tests.fixtures.server import RunningServer


@pytest.fixture
def stationmaster(server: RunningServer, tmp_path: Path) -> Program:
    return Program(tmp_path, server.target, server.admin_key)


def objects(result: Result) -> Iterator[dict[str, Any]]:
    """All JSON values on standard output; it fails when there is anything else."""
    assert result.code == 0, result.err
    decoder, text = json.JSONDecoder(), result.out
    while text.strip():
        value, end = decoder.raw_decode(text := text.lstrip())
        yield value
        text = text[end:]


async def test_with_json_every_command_prints_json_and_nothing_else(stationmaster: Program) -> None:
    async def one(*arguments: str) -> dict[str, Any]:
        (found,) = objects(await stationmaster(*arguments, "--json"))
        return found

    agent = await one("agents", "create", "clerk", "--model", "demo", "--tool", "files.*", "--ask", "files.write")
    assert agent["spec"]["toolPolicies"] == [{"pattern": "files.write", "effect": "TOOL_EFFECT_ASK"}]
    session = await one("sessions", "create", "--agent", "clerk", "--name", "first", "--label", "a=b")
    assert session["labels"] == {"a": "b"}
    name = session["name"]
    events = list(objects(await stationmaster("chat", name, "-m", "list the files", "--json")))
    assert "turnFinished" in events[-1]
    asked = await stationmaster("chat", name, "-m", "write hello to notes.txt", "--json")
    assert asked.code == 5
    (request,) = (await one("permissions", "list"))["permissionRequests"]
    assert (await one("permissions", "allow", request["name"][-6:]))["state"] == "PERMISSION_STATE_ALLOWED"
    again = await stationmaster("permissions", "allow", request["name"][-6:])
    assert again.code == 5
    assert "is ALLOWED already" in again.err
    user = await one("users", "create", "Ann", "--email", "ann@example.com")
    key = await one("keys", "create", "ci", "--user", "ann@example.com", "--scope", "sessions.read")
    assert key["secret"]
    lists = {
        "agents": ("agents", "list"),
        "models": ("agents", "models"),
        "sessions": ("sessions", "list"),
        "messages": ("sessions", "messages", name),
        "turns": ("sessions", "turns", name[-6:]),
        "hits": ("sessions", "search", "files"),
        "users": ("users", "list"),
        "apiKeys": ("keys", "list"),
        "organizations": ("organizations", "list"),
        "auditEvents": ("audit", "list"),
    }
    rest: list[tuple[str, ...]] = [
        ("whoami",),
        ("status",),
        ("agents", "get", "clerk"),
        ("agents", "update", "clerk", "--name", "Clerk"),
        ("sessions", "get", "-"),
        ("sessions", "update", name, "--name", "second"),
        ("sessions", "fork", name, "--up-to", "1"),
        ("sessions", "pause", name),
        ("sessions", "resume", name),
        ("sessions", "terminate", name),
        ("sessions", "archive", name),
        ("users", "get", user["name"][-6:]),
        ("users", "update", user["name"], "--role", "viewer"),
        ("users", "disable", "ann@example.com"),
        ("keys", "revoke", key["apiKey"]["name"]),
        ("quota", "set", "me", "--calls", "1000", "--dollars", "1.5", "--tokens", "9000000", "--seconds", "3600.5"),
        ("quota", "get"),
        ("quota", "usage", "organization"),
        ("organizations", "get"),
        ("policies", "set", "files.*", "deny"),
        ("policies", "list"),
        ("policies", "remove", "files.*"),
        ("organizations", "webhook", "none"),
        ("organizations", "create", "Acme", "--owner", "Bob"),
        ("agents", "delete", "clerk", "--force"),
    ]
    results = await stationmaster.many([(*arguments, "--json") for arguments in (*lists.values(), *rest)])
    answers = [next(objects(result)) for result in results]
    assert [len(list(objects(result))) for result in results] == [1] * len(results)
    for field, answer in zip(lists, answers, strict=False):
        assert answer[field], field


async def test_tool_policies_are_set_listed_and_removed(stationmaster: Program) -> None:
    for arguments in (("files.*", "ask"), ("files.write", "allow"), ("files.*", "deny")):
        assert (await stationmaster("policies", "set", *arguments)).code == 0
    organization, mine = objects(await stationmaster("policies", "list", "--json")), ("--user", "me")
    assert [(rule["pattern"], rule["effect"]) for rule in next(organization)["toolPolicies"]] == [
        ("files.write", "TOOL_EFFECT_ALLOW"),
        ("files.*", "TOOL_EFFECT_DENY"),
    ]
    assert "has no rules" in (await stationmaster("policies", "list", *mine)).err
    assert "math.*" in (await stationmaster("policies", "set", "math.*", "deny", *mine)).out
    assert (await stationmaster("policies", "remove", "math.*", *mine)).code == 0
    assert (await stationmaster("policies", "remove", "math.*", *mine)).code == 3


async def test_the_secret_of_a_webhook_is_never_an_argument_and_never_shown(
    stationmaster: Program, tmp_path: Path
) -> None:
    secret, url = "whsec_" + "A" * 32, "https://hooks.example.com/permissions"
    without = await stationmaster("organizations", "webhook", url)
    assert (without.code, "--secret-file" in without.err) == (2, True)
    piped = await stationmaster("organizations", "webhook", url, "--secret-file", "-", stdin=secret + "\n")
    assert (piped.code, url in piped.out) == (0, True)
    file = tmp_path / "secret"
    file.write_text(secret)
    filed = await stationmaster("organizations", "webhook", url, "--secret-file", str(file), "--json")
    async with at_terminal(stationmaster, "organizations", "webhook", f"{url}/2") as terminal:
        await terminal.see("not shown): ")
        terminal.type(secret + "\n")
        await terminal.see(f"{url}/2")
        assert await terminal.ended() == 0
    kept = await stationmaster("organizations", "webhook", f"{url}/3", "--keep-secret")
    assert (kept.code, f"{url}/3" in kept.out) == (0, True)
    assert secret not in piped.out + piped.err + filed.out + filed.err + terminal.screen


async def test_the_answer_is_all_that_a_pipe_gets(stationmaster: Program) -> None:
    result = await stationmaster("chat", "-m", "what is 6*7")
    assert (result.code, result.out) == (0, "math.evaluate says: 42\n")
    assert "⚙ math.evaluate" in result.err


async def test_quotas_of_the_day_are_set_shown_and_held(stationmaster: Program) -> None:
    limits = ("--tokens", "50000", "--tool-calls", "1", "--seconds", "3600.5")
    assert (await stationmaster("quota", "set", "me", *limits)).code == 0
    calls = '/tools\n/tool math.evaluate {"expression": "1+1"}\n/tool math.evaluate {"expression": "2+2"}'
    stopped = await stationmaster("chat", "-m", calls)
    assert "max_tool_calls_per_day is 1; 1 are used and 1 more were asked for" in stopped.out + stopped.err
    shown = " ".join((await stationmaster("quota", "get")).out.split())
    assert "tool calls a day 1 1" in shown
    assert "50,000" in shown
    assert (await stationmaster("quota", "set", "me", "--seconds", "long")).code == 2
    (quota,) = objects(await stationmaster("quota", "set", "me", "--seconds", "none", "--tokens", "none", "--json"))
    assert "maxRunningTimePerDay" not in quota


async def test_failures_of_the_real_server_have_their_exit_codes(stationmaster: Program) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    assert (await stationmaster("sessions", "get", nobody)).code == 3
    assert (await stationmaster("agents", "create", "a", "--model", "nothing:there")).code == 5
    assert (await stationmaster("sessions", "list", "-f", "bad ~ x")).code == 2
    assert (await stationmaster("whoami", STATIONMASTER_API_KEY="sm_wrong")).code == 4
    assert (await stationmaster("quota", "set", "me", "--sessions", "0")).code == 0
    full = await stationmaster("chat", "-m", "hello")
    assert full.code == 6
    assert "QUOTA_EXCEEDED" in full.err


async def test_an_agent_can_come_from_a_file(stationmaster: Program, tmp_path: Path) -> None:
    file = tmp_path / "helper.toml"
    file.write_text('id = "helper"\ndisplay_name = "A helper"\n[spec]\nmodel = "demo"\ntools = ["files.*"]\n')
    assert (await stationmaster("agents", "create", "--file", str(file))).code == 0
    (agent,) = objects(await stationmaster("agents", "get", "helper", "--json"))
    assert (agent["displayName"], agent["spec"]["tools"]) == ("A helper", ["files.*"])
    file.write_text('id = "helper"\n[spec]\nmodel = "demo"\ntool = ["files.*"]\n')
    result = await stationmaster("agents", "create", "--file", str(file))
    assert result.code == 2
    assert "spec.tool: there is no such" in " ".join(result.err.split())


async def test_an_agent_can_name_mcp_servers(stationmaster: Program) -> None:
    made = await stationmaster("agents", "create", "clerk", "--model", "demo", "--mcp-server", "board")
    assert made.code == 0, made.err
    assert "board" in made.out
    changed = await stationmaster(
        "agents", "update", "clerk", "--mcp-server", "board", "--mcp-server", "monitoring", "--json"
    )
    (agent,) = objects(changed)
    assert agent["spec"]["mcpServers"] == ["board", "monitoring"]
    assert (await stationmaster("agents", "update", "clerk", "--mcp-server", "no such")).code == 2


async def test_an_agents_limits_are_options(stationmaster: Program) -> None:
    limits = ("dollars-per-turn=0.5", "seconds-per-turn=90", "seconds-per-session=600")
    options = (*(word for limit in limits for word in ("--limit", limit)), "--at-limit", "ask")
    assert (await stationmaster("agents", "create", "frugal", "--model", "demo", *options)).code == 0
    (agent,) = objects(await stationmaster("agents", "get", "frugal", "--json"))
    wanted = {"maxCostMicrosPerTurn": "500000", "maxTurnDuration": "90s", "onBreach": "ON_BREACH_ASK"}
    assert {name: agent["spec"]["limits"][name] for name in wanted} == wanted
    shown = (await stationmaster("agents", "get", "frugal")).out
    assert f"{', '.join(limits)}, at a limit: ask" in " ".join(shown.split())
    assert (await stationmaster("agents", "update", "frugal", "--limit", "dollars-per-turn=none")).code == 0
    (agent,) = objects(await stationmaster("agents", "get", "frugal", "--json"))
    assert agent["spec"]["limits"]["maxCostMicrosPerTurn"] == "0"
    for wrong in ("dollars=1", "dollars-per-turn=much"):
        assert (await stationmaster("agents", "update", "frugal", "--limit", wrong)).code == 2


async def test_a_turn_at_a_limit_asks_at_a_terminal_and_goes_on(stationmaster: Program) -> None:
    options = ("--tool", "*", "--limit", "tool-calls-per-turn=1", "--at-limit", "ask")
    assert (await stationmaster("agents", "create", "busy", "--model", "demo", *options)).code == 0
    two = '/tool math.evaluate {"expression": "1+1"}\n/tool math.evaluate {"expression": "2+2"}'
    pipe = await stationmaster("chat", "--agent", "busy", "-m", two, "--permissions", "allow")
    assert pipe.code == 6, "whoever allows all tools has not allowed all limits"
    async with at_terminal(stationmaster, "chat", "--agent", "busy", "-m", two) as terminal:
        await terminal.see("max_tool_calls_per_turn is 1; 2 would be used")
        await terminal.see("end the turn? ")
        terminal.type("y\n")
        await terminal.see("✓ 4")


async def test_a_conversation_at_a_terminal_asks_for_permission_and_goes_on(stationmaster: Program) -> None:
    async with at_terminal(stationmaster, "chat") as terminal:
        await terminal.see("» ")
        terminal.type("write hello to notes.txt\n")
        await terminal.see("[e]dit? ")
        terminal.type("y\n")
        await terminal.see("files.write says: Wrote 5 bytes to notes.txt.")
        terminal.type("read notes.txt\n")
        await terminal.see("files.read says: hello")
        assert await terminal.ended(pressing="\x04") == 0
        assert "Traceback" not in terminal.screen


async def test_ctrl_c_cancels_a_running_turn(stationmaster: Program) -> None:
    async with at_terminal(stationmaster, "chat", "-m", "/slow 50\n/say 1000") as terminal:
        await terminal.see("word5 ")
        terminal.type("\x03")
        await terminal.see("the turn was cancelled")
        assert await terminal.ended() == 130
    (turns,) = objects(await stationmaster("sessions", "turns", "-", "--json"))
    assert [turn["state"] for turn in turns["turns"]] == ["TURN_STATE_CANCELLED"]


async def test_no_color_is_respected_at_a_terminal(stationmaster: Program) -> None:
    async with at_terminal(stationmaster, "whoami", NO_COLOR="1") as terminal:
        assert await terminal.ended() == 0
        await terminal.see("Local administrator")
        assert "\x1b" not in terminal.raw
    async with at_terminal(stationmaster, "whoami") as terminal:
        assert await terminal.ended() == 0
        await terminal.see("Local administrator")
        assert "\x1b[" in terminal.raw


async def test_permissions_that_earlier_turns_wait_for_are_answered_too(stationmaster: Program) -> None:
    options = ("--model", "demo", "--tool", "files.*", "--ask", "files.write")
    assert (await stationmaster("agents", "create", "scribe", *options)).code == 0
    first = await stationmaster("chat", "--agent", "scribe", "-m", "write hello to notes.txt")
    assert first.code == 5
    # Nobody is there to answer: it says what waits, and leaves nothing in the queue.
    second = await stationmaster("chat", "-", "-m", "read notes.txt")
    assert second.code == 5
    assert "files.write waits for permission" in second.err
    assert first.err.splitlines()[-2:] == second.err.splitlines()[-2:]
    allowed = await stationmaster("chat", "-", "-m", "read notes.txt", "--permissions", "allow")
    assert allowed.code == 0, allowed.err
    assert "files.read says: hello" in allowed.out
    assert (await stationmaster("chat", "-", "-m", "write more to notes.txt")).code == 5
    denied = await stationmaster("chat", "-", "-m", "read notes.txt", "--permissions", "deny")
    assert denied.code == 0, denied.err
    assert "files.read says: hello" in denied.out


async def test_what_a_turn_asks_while_another_waits_behind_it_is_answered(stationmaster: Program) -> None:
    options = ("--model", "demo", "--tool", "files.*", "--ask", "files.write")
    assert (await stationmaster("agents", "create", "writer", *options)).code == 0
    twice = '/tool files.write {"path": "a", "content": "1"}\n/tool files.write {"path": "b", "content": "2"}'
    assert (await stationmaster("chat", "--agent", "writer", "-m", twice)).code == 5
    read = await stationmaster("chat", "-", "-m", "read b", "--permissions", "allow")
    assert read.code == 0, read.err
    assert "files.read says: 2" in read.out
    assert (await stationmaster("chat", "-", "-m", twice)).code == 5
    async with at_terminal(stationmaster, "chat", "-", "-m", "list the files") as terminal:
        for _ in range(2):
            await terminal.see("[e]dit? ")
            terminal.type("n\n")
            await terminal.see("what to tell the model")
            terminal.type("\n")
            await terminal.see("answered files.write of a turn before this one")
        await terminal.see("files.list says")
        assert await terminal.ended() == 0
