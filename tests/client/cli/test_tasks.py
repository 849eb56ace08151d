"""`stationmaster tasks`, `schedules` and `queue` against the real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from stationmaster.v1.task_pb2_grpc import TaskServiceStub

from tests.client.cli.program import Program, Result
from tests.client.cli.terminal import at_terminal
from tests.fixtures.server import RunningServer
from tests.tasks.kinds import Steered
from tests.tasks.process.calls import processed

CREATE = ("tasks", "create")
STEERED = ("--kind", "steered")


@pytest.fixture
def stationmaster(station: RunningServer, tmp_path: Path) -> Program:
    return Program(tmp_path, station.target, station.admin_key)


def parsed(result: Result) -> Any:
    assert result.code == 0, result.err
    return json.loads(result.out)


async def test_with_json_every_command_prints_json_and_nothing_else(stationmaster: Program) -> None:
    commands = [
        (*CREATE, "hello", *STEERED, "-p", "text=hello", "--cron", "@daily", "--name", "Greeting"),
        (*CREATE, "other", *STEERED),
        ("tasks", "update", "hello", "--report", "md,pdf", "--label", "team=blue"),
        ("tasks", "show", "hello"),
        ("tasks", "list"),
        ("tasks", "search", "greeting"),
        ("tasks", "render", "hello"),
        ("tasks", "run", "hello"),
        ("tasks", "backfill", "hello", "--from", "-3d", "--dry-run"),
        ("tasks", "pause", "hello"),
        ("tasks", "resume", "hello"),
        ("tasks", "depend", "other", "hello"),
        ("tasks", "deps", "other"),
        ("tasks", "undepend", "other", "hello"),
        ("tasks", "delete", "other"),
        ("schedules", "list"),
        ("schedules", "preview", "hello"),
        ("executions", "submit", *STEERED),
        ("executions", "list"),
        ("executions", "show", "-"),
        ("executions", "cancel", "-"),
        ("executions", "retry", "-f", 'kind = "steered"'),
        ("queue",),
    ]
    answers = [parsed(result) for result in await stationmaster.many([(*each, "--json") for each in commands])]
    assert answers[2]["options"]["reportFormats"] == ["REPORT_FORMAT_MARKDOWN", "REPORT_FORMAT_PDF"]
    assert answers[2]["labels"] == {"team": "blue"}
    for answer, field in ((answers[4], "tasks"), (answers[5], "hits"), (answers[12], "dependencies")):
        assert answer[field]


async def test_search_finds_passages_of_documents_by_words_and_by_meaning(
    stationmaster: Program, station: RunningServer
) -> None:
    async with station.channel() as channel:
        await processed(TaskServiceStub(channel), text="# Zoo\n\nPenguins eat fish.", source="handbook")
    search = ("tasks", "search", "--documents", "feeding a penguin")
    words, meaning, both, shown = await stationmaster.many(
        [(*search, "--json"), (*search, "--meaning", "--json"), (*search, "--hybrid", "--json"), (*search, "--meaning")]
    )
    assert parsed(words)["hits"] == []
    for result in (meaning, both):
        assert [hit["passage"]["source"] for hit in parsed(result)["hits"]] == ["handbook"]
    assert "handbook" in shown.out
    assert "Zoo" in shown.out
    (refused,) = await stationmaster.many([(*search, "--meaning", "--hybrid")])
    assert refused.code == 2


async def test_task_from_a_file_may_be_written_short(stationmaster: Program, tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(
        """
id: nightly
kind: steered
payload: {text: "{{ who }} on {{ day }}", steps: "{{ steps }}"}
variables:
  - {name: who, default_value: Ada}
  - {name: steps, type: integer, default_value: 3, allowed_values: [3, 5]}
  - {name: day, default_value: 2026-03-01}
schedule: {every: 90m, start_time: 2026-01-01T00:00:00Z, overlap: buffer-one}
options: {priority: low, report_formats: [html], timeouts: {start_to_close: 1h 30m}}
labels: {team: blue}
"""
    )
    made = parsed(await stationmaster(*CREATE, "--file", str(file), "--name", "Nachts", "--json"))
    assert (made["name"], made["displayName"]) == ("tasks/nightly", "Nachts")
    assert (made["schedule"]["every"], made["schedule"]["overlap"]) == ("5400s", "OVERLAP_POLICY_BUFFER_ONE")
    assert (made["options"]["priority"], made["options"]["timeouts"]["startToClose"]) == (
        "EXECUTION_PRIORITY_LOW",
        "5400s",
    )
    rendered = parsed(await stationmaster("tasks", "render", "nightly", "-v", "steps=5", "--json"))
    assert rendered["payload"] == {"text": "Ada on 2026-03-01", "steps": "5"}
    file.write_text("id: nightly\nkind: steered\nschedule: {cron: '@hourly'}\n")
    changed = parsed(await stationmaster("tasks", "update", "nightly", "--file", str(file), "--json"))
    assert (changed["schedule"]["cron"], "every" in changed["schedule"]) == ("@hourly", False)
    assert changed["labels"] == {"team": "blue"}


async def test_what_a_file_gets_wrong_is_told_by_its_place(stationmaster: Program, tmp_path: Path) -> None:
    wrong = {
        "variables: [{name: a, type: integr}]": "variables[0].type: 'integr' is none of STRING, INTEGER",
        "schedule: {every: soon}": "schedule.every: 'soon' is no length of time",
        "shedule: {}": "shedule: there is no such field (did you mean schedule?); there are: name, ",
        "options: {concurrency: {max_runing: 1}}": "options.concurrency.max_runing: there is no such field (did you"
        " mean max_running?); there are: key, max_running, strategy",
        "options: {concurrency: {max_running: many}}": "options.concurrency.max_running: 'many' is no whole number",
        "payload: {steps: many}": "task.payload.steps: is to be a whole number",
        "schedule: {cron: '0 25 * * *'}": "task.schedule.cron: the hour field, '25', is wrong",
        "schedule: {cron: '@daily', time_zone: Mars/Olympus}": "task.schedule.time_zone",
        "payload: {text: '{{ nope }}'}": "task.payload.text",
        "payload: {colour: red}": "task.payload.colour",
        "- 1": "does not hold one of tasks",
    }
    files = []
    for number, text in enumerate(wrong):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(text if text.startswith("-") else f"id: t\nkind: steered\n{text}\n")
    results = await stationmaster.many([(*CREATE, "--file", str(file)) for file in files])
    for said, result in zip(wrong.values(), results, strict=True):
        assert (result.code, said in result.err) == (2, True), result


async def test_options_say_what_a_task_is(stationmaster: Program, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("from a file")
    payload = ("-p", f"text=@{tmp_path / 'text'}", "-p", "fail:=0", "-p", '{"steps": 2}')
    variables = ("-v", "who", "-v", "count:integer=3", "-v", "urls:list=[1]")
    limits = ("--priority", "high", "--attempts", "2", "--time-limit", "5m", "--max-running", "1")
    key = ("--concurrency-key", "k-{{ who }}", "--strategy", "cancel-newest")
    due = ("--every", "90s", "--overlap", "allow-all", "--catch-up", "6h")
    made, again, shown = await stationmaster.many(
        [
            (*CREATE, "t", *STEERED, *payload, *variables, *limits, *key, "--json"),
            ("tasks", "update", "t", "-v", "who=Ada", "-p", "steps:=3", *due, "--json"),
            ("tasks", "show", "t"),
        ]
    )
    task, changed = parsed(made), parsed(again)
    assert task["payload"] == {"text": "from a file", "fail": 0, "steps": 2}
    assert [(one["name"], one["required"]) for one in task["variables"]] == [
        ("who", True), ("count", False), ("urls", False),
    ]  # fmt: skip
    assert (task["variables"][1]["defaultValue"], task["options"]["retry"]["maxAttempts"]) == (3, 2)
    assert (changed["variables"][0]["defaultValue"], changed["schedule"]["every"]) == ("Ada", "90s")
    assert changed["payload"]["steps"] == 3
    assert (changed["schedule"]["overlap"], changed["schedule"]["catchUp"]) == ("OVERLAP_POLICY_ALLOW_ALL", "21600s")
    for text in (
        "every 90 s",
        "1 at once of k-{{ who }}, cancel newest",
        "high",
        "at most 5 min each",
        "integer · default 3",
        "from a file",
    ):
        assert text in shown.out


async def test_show_has_all_lines_of_a_text_within_bounds(stationmaster: Program) -> None:
    lines = "\n".join(f"line {number}" for number in range(1, 121))
    created, executed, task, execution = await stationmaster.many(
        [
            (*CREATE, "t", *STEERED, "-p", f"text=first\n  second\n{lines}"),
            ("tasks", "run", "t"),
            ("tasks", "show", "t"),
            ("executions", "show", "-"),
        ]
    )
    assert (created.code, executed.code) == (0, 0)
    for shown in (task.out, execution.out):
        found = [line.strip() for line in shown.splitlines()]
        assert "payload text" in found[found.index("second") - 1]
        assert "  second" in shown
        assert "line 98" in found
        assert "line 99" not in found
        assert any(line.endswith("more characters: --json shows all") for line in found)


async def test_what_does_not_go_together_is_told(stationmaster: Program) -> None:
    wrong = {
        CREATE: "an id and a kind are needed",
        (*CREATE, "t", *STEERED, "-p", "text"): "KEY:=JSON",
        (*CREATE, "t", *STEERED, "-p", "steps:=x"): "is no JSON",
        (*CREATE, "t", *STEERED, "-v", "a:colour"): "types are string, integer",
        (*CREATE, "t", *STEERED, "--cron", "@daily", "--every", "1h"): "exclude each other",
        (*CREATE, "t", *STEERED, "--time-zone", "Europe/Berlin"): "give --cron as well",
        (*CREATE, "t", *STEERED, "--catch-up", "1h"): "give --cron as well",
        (*CREATE, "t", *STEERED, "--cron", "@daily", "--overlap", "never"): "write one of skip, buffer-one",
        (*CREATE, "t", *STEERED, "--strategy", "never"): "write one of wait, cancel-running",
        (*CREATE, "t", *STEERED, "--report", "docx"): "there are: pdf, html, md and json",
        (*CREATE, "t", *STEERED, "--priority", "first"): "urgent, high",
        ("tasks", "run", "t", "--report", "report.docx"): "there is no report as '.docx'",
        ("tasks", "run", "t", "--at", "noon"): "is no time",
        ("tasks", "backfill", "t", "--from", "long ago"): "is no time",
        ("tasks", "backfill", "t", "--from", "-1d", "--to", "-2d"): "--to must be after --from",
        (*CREATE, "t", *STEERED, "--attempts", "0"): "--attempts",
        ("executions", "retry"): "name an execution, or give --filter or --task",
        ("schedules", "preview"): "name a task, or give an expression",
        ("schedules", "preview", "61 * * * *"): "the minute field, '61', is wrong",
        ("executions", "submit", "-k", "nothing"): "there is no kind 'nothing'",
    }
    results = await stationmaster.many(list(wrong))
    for said, result in zip(wrong.values(), results, strict=True):
        assert (result.code, said in result.err) == (2, True), result


async def test_failures_of_the_server_have_their_exit_codes(stationmaster: Program) -> None:
    await stationmaster.many(
        [
            *((*CREATE, task, *STEERED) for task in ("a", "b", "c")),
            ("tasks", "depend", "b", "a"),
            ("tasks", "depend", "c", "b"),
            (*CREATE, "typed", *STEERED, "-v", "count:integer"),
        ]
    )
    expected = {
        ("tasks", "show", "nobody"): (3, "tasks/nobody"),
        ("tasks", "run", "nobody"): (3, "tasks/nobody"),
        ("executions", "retry", "--task", "nobody"): (3, "tasks/nobody"),
        (*CREATE, "a", *STEERED): (5, "RESOURCE_EXISTS"),
        ("tasks", "depend", "a", "c"): (5, "tasks/a -> tasks/c -> tasks/b -> tasks/a"),
        ("tasks", "delete", "a"): (5, "tasks/b depends on it"),
        ("tasks", "resume", "a"): (5, "is ACTIVE already"),
        ("tasks", "backfill", "a", "--from", "-1d"): (5, "schedule"),
        ("schedules", "preview", "a"): (5, "schedule"),
        ("tasks", "run", "typed"): (2, "variables.count"),
        ("tasks", "run", "typed", "-v", "count=many", "-v", "other=1"): (2, "variables.other"),
        ("executions", "show", "00000000-0000-7000-8000-000000000000"): (3, "executions/"),
        ("executions", "show", "-"): (3, "there is no execution yet"),
    }
    results = await stationmaster.many(list(expected))
    for (code, said), result in zip(expected.values(), results, strict=True):
        assert (result.code, said in result.err) == (code, True), result


async def test_dependencies_are_shown_with_how_they_stand(stationmaster: Program) -> None:
    results = await stationmaster.many(
        [
            *((*CREATE, task, *STEERED) for task in ("a", "b", "c")),
            ("tasks", "depend", "b", "a"),
            ("tasks", "depend", "c", "b", "--on-failure", "run-anyway"),
            ("tasks", "deps", "c"),
            ("tasks", "deps", "a", "--downstream", "--depth", "1"),
            ("tasks", "deps", "a"),
        ]
    )
    assert results[4].out == "tasks/c waits for tasks/b\n"
    lines = [line.split() for line in results[5].out.splitlines()]
    assert lines[1][:4] == ["1", "c", "b", "pending"]
    assert lines[2][:4] == ["2", "b", "a", "pending"]
    assert "could not start now" in results[5].err
    assert [line.split()[1] for line in results[6].out.splitlines()[1:]] == ["b"]
    assert "a waits for nothing." in results[7].err


async def test_schedule_is_previewed_in_its_zone_and_here(stationmaster: Program) -> None:
    after = ("--after", "2026-03-28T12:00:00+00:00", "-n", "2")
    preview = ("schedules", "preview", "30 2 * * *", "--time-zone", "Europe/Berlin", *after)
    abroad = await stationmaster(*preview, TZ="America/New_York")
    assert abroad.out.splitlines()[0] == "At 02:30 every day (Europe/Berlin)"
    assert abroad.out.splitlines()[1].split() == ["Europe/Berlin", "HERE"]
    assert abroad.out.splitlines()[2].startswith("Sun 2026-03-29 03:00:00 +0200  Sat 2026-03-28 21:00:00 -0400")
    home = await stationmaster(*preview, TZ="Europe/Berlin")
    assert home.out.splitlines()[1].split() == ["Europe/Berlin"]


async def test_schedules_are_listed_by_what_is_due_next(stationmaster: Program) -> None:
    listed = (
        await stationmaster.many(
            [
                (*CREATE, "yearly", *STEERED, "--cron", "@yearly"),
                (*CREATE, "often", *STEERED, "--every", "1h"),
                (*CREATE, "never", *STEERED),
                ("schedules", "list"),
            ]
        )
    )[-1]
    assert [line.split()[0] for line in listed.out.splitlines()] == ["TASK", "often", "yearly"]


async def test_backfill_tells_the_times_and_what_it_left_out(stationmaster: Program) -> None:
    fill = ("tasks", "backfill", "hourly", "--from", "2026-03-01T00:00Z", "--to", "2026-03-01T03:00Z")
    results = await stationmaster.many([(*CREATE, "hourly", *STEERED, "--cron", "@hourly"), fill, fill])
    assert (len(results[1].out.splitlines()), "3 queued" in results[1].err) == (4, True)
    assert "0 queued, 3 left out: executed before" in results[2].err


async def test_queue_is_watched_until_ctrl_c(stationmaster: Program, steered: Steered) -> None:
    async with at_terminal(stationmaster, "queue", "--watch", "--every", "0.2") as terminal:
        await terminal.see("KIND")
        await stationmaster("executions", "submit", *STEERED, "-p", "gate=never")
        await terminal.see("steered")
        assert await terminal.ended(pressing="\x03") == 130
    process = await stationmaster.start("queue", "--watch", "--every", "0.2", "--json")
    assert process.stdout is not None
    async with asyncio.timeout(30):
        lines = [json.loads(await process.stdout.readline()) for _ in range(2)]
    running = [one["runningCount"] for line in lines for one in line["kinds"] if one["kind"] == "steered"]
    assert running == ["1", "1"]
    os.kill(process.pid, signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130


async def test_run_says_what_it_waits_for(stationmaster: Program) -> None:
    _, _, _, run, _, watched = await stationmaster.many(
        [
            ("tasks", "create", "up", *STEERED),
            ("tasks", "create", "down", *STEERED),
            ("tasks", "depend", "down", "up"),
            ("tasks", "run", "down"),
            ("executions", "cancel", "-"),
            ("executions", "watch", "-"),
        ]
    )
    assert "It waits for tasks/up. Not to wait: --ignore-dependencies." in run.err
    assert "… waits for tasks/up" in watched.err


async def test_a_default_of_the_wrong_type_is_refused_with_what_was_expected(stationmaster: Program) -> None:
    (refused,) = await stationmaster.many([("tasks", "create", "bad", *STEERED, "-v", "n:integer=abc")])
    assert (refused.code, "expected an integer, not 'abc'" in refused.err) == (2, True)
