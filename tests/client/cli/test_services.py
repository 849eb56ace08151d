"""`stationmaster services`, `operations` and `status` against the real server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from stationmaster_client import Client

from tests.client.cli.program import Program
from tests.client.cli.terminal import at_terminal
from tests.client.cli.test_with_server import objects
from tests.contract.world import connect, settle
from tests.fixtures.outage import Outage
from tests.fixtures.server import RunningServer
from tests.waiting import until


@pytest.fixture
def stationmaster(server: RunningServer, tmp_path: Path) -> Program:
    return Program(tmp_path, server.target, server.admin_key)


async def test_background_services_are_listed_held_changed_and_triggered(stationmaster: Program) -> None:
    commands = [
        ("services", "list", "--json"),
        ("services", "list"),
        ("services", "show", "session-cleanup"),
        ("services", "pause", "session-cleanup", "--reason", "for a while"),
        ("services", "show", "session-cleanup", "--json"),
        ("services", "list", "-f", "state = PAUSED"),
        ("services", "resume", "session-cleanup", "--json"),
        ("services", "set", "task-embedding", "--interval", "5m", "--disable", "-s", "batch_size:=7", "--json"),
        ("services", "set", "task-embedding", "--interval", "default", "--enable", "--max-failures", "9", "--json"),
        ("services", "set", "task-embedding", "--alert-run-time", "2m", "--alert-memory", "1024", "--alert-files", "7"),
        ("services", "trigger", "session-cleanup", "--wait"),
        ("services", "trigger", "index-optimization", "optimize", "--wait", "--json"),
        ("operations", "list"),
        ("operations", "list", "--json"),
        ("operations", "show", "-", "--json"),
        ("services", "set", "crawl-cleanup", "--disable"),
        ("services", "resume", "crawl-cleanup"),
    ]
    results = await stationmaster.many(commands)
    assert [result.code for result in results] == [0] * len(commands), [result.err for result in results]
    (
        listed,
        table,
        shown,
        paused,
        held,
        only,
        resumed,
        changed,
        back,
        alerts,
        triggered,
        optimized,
        operations,
        told,
        newest,
        _,
        still_off,
    ) = (result.out for result in results)
    names = {service["name"] for service in json.loads(listed)["backgroundServices"]}
    assert {"backgroundServices/session-cleanup", "backgroundServices/task-embedding"} <= names
    assert all(name.partition("/")[2] in table for name in names)
    assert "batch_size" not in shown
    assert "Run at once" in shown
    assert "is paused" in paused
    held_message = json.loads(held)
    assert (held_message["state"], held_message["pauseReason"]) == ("BACKGROUND_SERVICE_STATE_PAUSED", "for a while")
    assert [line.split()[0] for line in only.splitlines()[1:]] == ["session-cleanup"]
    assert json.loads(resumed)["state"] != "BACKGROUND_SERVICE_STATE_PAUSED"
    set_message, back_message = json.loads(changed), json.loads(back)
    assert (set_message["interval"], set_message["enabled"], set_message["settings"]["batch_size"]) == (
        "300s",
        False,
        7,
    )
    assert (back_message["interval"], back_message["enabled"], back_message["maxFailures"]) == ("60s", True, 9)
    assert "20 errors an hour, runs of 2 min, 1.0 KiB left behind, 7 files left open" in " ".join(alerts.split())
    assert "succeeded" in triggered
    assert "tables" in json.loads(optimized)["result"]
    told_while_waiting = [result.err for result in results if result.err]
    assert told_while_waiting == [f"{one['name']}\n" for one in reversed(json.loads(told)["operations"])]
    all_operations = json.loads(told)["operations"]
    assert operations.count("succeeded") == len(all_operations) == 2
    assert json.loads(newest)["name"] == all_operations[0]["name"]
    by_its_end = await stationmaster("operations", "show", operations.splitlines()[2].split()[0], "--json")
    assert json.loads(by_its_end.out)["name"] == all_operations[1]["name"]
    assert "stationmaster services set crawl-cleanup --enable" in still_off


async def test_what_was_set_goes_back_to_its_default(stationmaster: Program) -> None:
    name = "index-optimization"
    options = ("--interval", "7m", "--max-failures", "9", "--alert-errors", "0", "--alert-files", "7")
    commands = [
        ("services", "show", name, "--json"),
        ("services", "set", name, *options, "-s", "change_threshold:=700", "-s", "interval_hours:=9", "--json"),
        ("services", "set", name, "--max-failures", "8", "--reset", "interval", "--reset", "alert-errors", "--json"),
        ("services", "set", name, "--reset", "max-failures", "--reset", "change_threshold", "--json"),
        ("services", "set", name, "--reset", "interval_hours", "--reset", "alert-files", "--json"),
        ("services", "set", name, "--interval", "9m", "--reset", "interval"),
        ("services", "set", name, "-s", "interval_hours:=9", "--reset", "interval_hours"),
        ("services", "set", name, "--reset", "colour"),
    ]
    *done, twice, own_twice, refused = await stationmaster.many(commands)
    assert [result.code for result in done] == [0] * len(done), [result.err for result in done]
    before, changed, some, more, back = (json.loads(result.out) for result in done)
    fields = ("interval", "maxFailures", "alertErrorsPerHour", "alertHandleGrowth", "settings")

    def of(service: dict[str, Any]) -> list[Any]:
        return [service[field] for field in fields]

    own = before["settings"]
    assert of(changed) == ["420s", 9, 0, 7, {**own, "change_threshold": 700, "interval_hours": 9}]
    assert of(some) == [before["interval"], 8, before["alertErrorsPerHour"], 7, changed["settings"]]
    assert of(more) == [before["interval"], 3, before["alertErrorsPerHour"], 7, {**own, "interval_hours": 9}]
    assert of(back) == of(before)
    for contradiction in (twice, own_twice):
        assert (contradiction.code, "either set or" in contradiction.err) == (2, True)
    assert refused.code == 2
    assert "'colour' has no default to go back to; there are" in refused.err
    assert "alert-errors" in refused.err
    assert "change_threshold" in refused.err


async def test_what_cannot_be_is_said_with_what_can(stationmaster: Program) -> None:
    commands = [
        ("services", "show", "tea-making"),
        ("services", "set", "task-embedding"),
        ("services", "set", "task-embedding", "--interval", "0s"),
        ("services", "set", "task-embedding", "-s", "colour=green"),
        ("services", "set", "task-embedding", "-s", "batch_size:=0"),
        ("services", "trigger", "task-embedding", "dance"),
        ("services", "trigger", "task-embedding", "embed-task", "-a", "task=tasks/nobody", "--wait"),
        ("services", "pause", "audit-sequencing"),
        ("services", "show", "audit-sequencing"),
    ]
    missing, nothing, zero, unknown, small, dance, failed, engine, seen = await stationmaster.many(commands)
    assert missing.code == 3
    assert (nothing.code, "nothing to change" in nothing.err) == (2, True)
    assert (zero.code, "write more than 0s, or 'default'" in zero.err) == (2, True)
    assert (unknown.code, "batch_size" in unknown.err) == (2, True)
    assert small.code == 2
    assert (dance.code, "embed-task" in dance.err) == (2, True)
    assert (failed.code, "tasks/nobody" in failed.err) == (5, True)
    assert (engine.code, "is an engine" in engine.err) == (5, True)
    assert (seen.code, "neither held nor set" in seen.out + seen.err) == (0, True)


async def test_status_tells_operators_of_the_installation_and_others_of_the_server(
    stationmaster: Program, server: RunningServer, tmp_path: Path
) -> None:
    (whole,) = objects(await stationmaster("status", "--json"))
    assert whole["status"] == "SERVING"
    (one,) = whole["system"]["servers"]
    assert one["resources"]["memory_resident_bytes"] > 0
    assert sum(whole["system"]["backgroundServices"].values()) > 10
    failing = ("executions", "submit", "-k", "prompt", "-p", "model=demo", "-p", "prompt=/fail auth", "--attempts", "1")
    assert (await stationmaster(*failing, "--watch")).code == 1
    text = (await stationmaster("status")).out
    assert "1 failed for good" in text
    assert "dead" not in text
    assert one["server"] in text
    assert "database" in text
    async with connect(server.target, server.admin_key) as operator:
        secret = await settle(operator, "Acme")
    other = Program(tmp_path / "other", server.target, secret)
    (theirs,) = objects(await other("status", "--json"))
    assert (theirs["status"], "system" in theirs) == ("SERVING", False)
    assert (await other("services", "list")).code == 4


async def test_status_says_that_the_server_is_up_and_its_database_away(
    stationmaster: Program, server: RunningServer, outage: Outage
) -> None:
    process = await stationmaster.start("status", "--watch", "--every", "1")
    assert process.stdout is not None
    assert process.stderr is not None
    assert await process.stdout.readline()
    await outage.begin()
    async with asyncio.timeout(30), Client.connect(server.target, server.admin_key) as client:
        assert await process.stderr.readline() == "⚡ the database is unavailable, trying again\n".encode()

        async def away() -> bool:
            return dict(await client.health.services())[""] == "NOT_SERVING"

        await until(away)
        text, as_json = await stationmaster("status"), await stationmaster("status", "--json")
        for result in (text, as_json):
            assert result.code == 7
            assert "error: the server is up, but not serving: the database is unavailable" in result.err
        assert "not serving: the database is unavailable" in text.out
        whole = json.loads(as_json.out)
        assert (whole["status"], whole["reason"]) == ("NOT_SERVING", "DATABASE_UNAVAILABLE")
        async with at_terminal(stationmaster, "status", "--watch", "--every", "1") as terminal:
            await terminal.see("⚡ the database is unavailable, trying again")
        await outage.end()
        assert await process.stderr.readline() == "↻ it answers again\n".encode()
    process.terminate()
    await process.wait()


async def test_status_is_watched_at_a_terminal_and_in_a_pipe(stationmaster: Program) -> None:
    async with at_terminal(stationmaster, "status", "--watch", "--every", "1") as terminal:
        await terminal.see("archive-cleanup")
        await terminal.see("connections")
        assert (await stationmaster("services", "pause", "session-cleanup")).code == 0
        await terminal.see("paused")
        await terminal.see("session-cleanup")  # it comes first now, however short the screen
    process = await stationmaster.start("status", "--watch", "--every", "1", "--json")
    assert process.stdout is not None
    lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
    process.terminate()
    await process.wait()
    assert lines[0]["readTime"] < lines[1]["readTime"]

    async def told() -> bool:
        (status,) = objects(await stationmaster("status", "--json"))
        return any(alert["subject"] == "backgroundServices/session-cleanup" for alert in status["system"]["alerts"])

    assert await until(told)
