"""Running and following executions at the command line, against the real server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from tests.client.cli.program import Program
from tests.client.cli.terminal import at_terminal
from tests.client.restarting import restarting_server
from tests.fixtures.server import RunningServer, StartServer
from tests.tasks.kinds import Steered

SUBMIT = ("executions", "submit", "--kind", "steered")
ASK = ("executions", "submit", "--kind", "prompt", "-p", "model=demo", "-p", "tools[]=math.*", "-p")


@pytest.fixture
def stationmaster(station: RunningServer, tmp_path: Path) -> Program:
    return Program(tmp_path, station.target, station.admin_key)


async def test_run_prints_the_name_and_how_to_watch_it(stationmaster: Program) -> None:
    await stationmaster("tasks", "create", "hello", "--kind", "steered")
    run = await stationmaster("tasks", "run", "hello")
    name = run.out.strip()
    assert name.startswith("executions/")
    assert run.err == f"Watch it: stationmaster executions watch {name[-12:]}\n"


async def test_a_key_used_again_says_that_it_was_there_or_for_what_else(stationmaster: Program) -> None:
    first, again, other = await stationmaster.many(
        [(*SUBMIT, "-p", f"text={text}", "--key", "order-1") for text in ("hello", "hello", "ho")]
    )
    assert again.out == first.out
    assert "It was there already: submitted" in again.err
    assert "already" not in first.err
    assert (other.code, other.out) == (5, "")
    assert f"'order-1' is that of {first.out.strip()}, which was submitted with another payload" in other.err


@pytest.mark.parametrize(
    ("payload", "code", "said"),
    [
        (("-p", "text=hello"), 0, "✓ succeeded"),
        (("-p", "fail:=1", "--attempts", "1"), 1, "✗ failed in"),
        (("-p", "fail:=9", "-p", "retryable:=false"), 1, "attempt 1 fails as it was told"),
    ],
)
async def test_exit_code_is_how_the_execution_ended(
    stationmaster: Program, payload: tuple[str, ...], code: int, said: str
) -> None:
    result = await stationmaster(*SUBMIT, *payload, "--watch")
    assert result.code == code
    assert said in result.err


async def test_cancelled_execution_ends_its_watchers_with_9(stationmaster: Program, steered: Steered) -> None:
    await stationmaster(*SUBMIT, "-p", "gate=never")
    watching = asyncio.create_task(stationmaster("executions", "watch", "-"))
    cancelled = await stationmaster("executions", "cancel", "-", "--reason", "not needed")
    assert "cancelled" in cancelled.out
    result = await watching
    assert result.code == 9
    assert "■ cancelled" in result.err


async def test_standard_output_of_a_pipe_is_the_result_and_nothing_else(stationmaster: Program) -> None:
    told = await stationmaster(*SUBMIT, "-p", "text=Größe", "-p", "steps:=3", "--watch")
    assert json.loads(told.out) == {"text": "Größe", "attempt": 1}
    assert "· Größe" in told.err
    assert "steps 3" in told.err
    asked = await stationmaster(*ASK, "prompt=what is 6*7", "--watch")
    assert (asked.code, asked.out) == (0, "math.evaluate says: 42\n")
    assert "⚙ math.evaluate" in asked.err
    assert "  ✓ 42" in asked.err


async def test_with_json_events_come_one_a_line_and_the_execution_last(stationmaster: Program) -> None:
    result = await stationmaster(*SUBMIT, "-p", "fail:=1", "--attempts", "1", "--watch", "--json")
    *events, execution = map(json.loads, result.out.splitlines())
    assert result.code == 1
    assert [event["sequence"] for event in events] == [str(number + 1) for number in range(len(events))]
    assert execution["state"] == "EXECUTION_STATE_FAILED"
    rest = await stationmaster("executions", "watch", "-", "--after", "2", "--json")
    assert [json.loads(line) for line in rest.out.splitlines()] == [*events[2:], execution]


async def test_failed_attempts_are_told_and_retried_by_hand(stationmaster: Program) -> None:
    failed = await stationmaster(*SUBMIT, "-p", "fail:=2", "-p", "text=again", "--attempts", "2", "--watch")
    assert failed.code == 1
    assert "✗ attempt 1 failed: attempt 1 fails as it was told; again in" in failed.err
    assert "✗ failed in" in failed.err
    shown, retried, watched = await stationmaster.many(
        [("executions", "show", "-"), ("executions", "retry", "-"), ("executions", "watch", "-")]
    )
    assert "1 failed " in shown.out
    for attempt in (1, 2):
        assert shown.out.count(f"attempt {attempt} fails as it was told") == 1
    assert not [line for line in shown.out.splitlines() if line != line.rstrip()]
    assert "is queued again" in retried.out
    assert watched.code == 1
    assert "… queued again: RETRIED" in watched.err
    again = (await stationmaster("executions", "show", "-")).out
    for text in ("2 since retry 1", "2 failed  ", "retry 1: 1 failed  ", "retry 1: 2 failed  "):
        assert text in again
    assert (await stationmaster(*SUBMIT, "--watch")).code == 0
    refused = await stationmaster("executions", "retry", "-")
    assert (refused.code, "is SUCCEEDED and cannot become QUEUED" in refused.err) == (5, True)


async def test_prompt_that_waits_for_a_person_says_how_to_answer(stationmaster: Program) -> None:
    await stationmaster("agents", "create", "clerk", "--model", "demo", "--tool", "files.*", "--ask", "files.write")
    command = ("executions", "submit", "-k", "prompt", "-p", "agent=clerk", "-p", "prompt=write hello to notes.txt")
    async with at_terminal(stationmaster, *command, "--watch") as terminal:
        await terminal.see("answer: stationmaster permissions allow sessions/")
        answer = terminal.screen.partition("stationmaster permissions allow ")[2].split()[0]
        assert (await stationmaster("permissions", "allow", answer)).code == 0
        await terminal.see("Wrote 5 bytes", seconds=60)
        await terminal.see("✓ succeeded", seconds=60)
        assert await terminal.ended() == 0


async def test_report_is_waited_for_and_saved_once(stationmaster: Program, tmp_path: Path) -> None:
    page, pdf = tmp_path / "report.html", tmp_path / "report.pdf"
    await stationmaster("tasks", "create", "hello", "--kind", "steered", "-p", "text=hello", "--report", "html")
    run = ("tasks", "run", "hello", "--report", str(page), "--report", str(pdf))
    first = await stationmaster(*run)
    assert (first.code, f"report: {page}" in first.err) == (0, True)
    assert page.read_text().startswith("<!")
    assert pdf.read_bytes().startswith(b"%PDF")
    again = await stationmaster(*run)
    assert (again.code, "exists already" in again.err) == (2, True)
    nowhere = await stationmaster("tasks", "run", "hello", "--report", str(tmp_path / "no" / "report.pdf"))
    assert (nowhere.code, "cannot be written" in nowhere.err) == (2, True)
    listed = await stationmaster("executions", "list", "--task", "hello", "--json")
    assert len(json.loads(listed.out)["executions"]) == 1, "nothing runs whose report cannot be written"
    other = await stationmaster("executions", "watch", "-", "--report", str(tmp_path / "report.md"))
    assert (other.code, "makes no report for" in other.err) == (5, True)


async def test_terminal_shows_a_bar_that_moves_and_then_the_result(stationmaster: Program, steered: Steered) -> None:
    command = (*SUBMIT, "-p", "steps:=4", "-p", "gate=end", "-p", "text=ready, steady", "--watch")
    async with at_terminal(stationmaster, *command) as terminal:
        await terminal.see("· ready, steady")
        await terminal.see("100%")
        await terminal.see("step 4 · steps 4")
        steered.gate("end").set()
        await terminal.see("✓ succeeded")
        assert await terminal.ended() == 0


async def test_ctrl_c_leaves_it_running_and_tells_how_to_come_back(stationmaster: Program, steered: Steered) -> None:
    async with at_terminal(stationmaster, *SUBMIT, "-p", "gate=end", "-p", "text=runs", "--watch") as terminal:
        await terminal.see("· runs")
        assert await terminal.ended(pressing="\x03") == 130
        await terminal.see("Watch it again: stationmaster executions watch")
        await terminal.see("End it: stationmaster executions cancel")
    process = await stationmaster.start("executions", "watch", "-")
    assert process.stderr is not None
    async with asyncio.timeout(30):
        await process.stderr.readuntil(b"runs\n")
    os.kill(process.pid, signal.SIGINT)
    _, err = await process.communicate()
    assert (process.returncode, b"It goes on." in err) == (130, True)
    steered.gate("end").set()
    assert (await stationmaster("executions", "watch", "-")).code == 0


async def test_watch_survives_a_server_that_is_killed(
    server_process: StartServer, database_url: str, tmp_path: Path
) -> None:
    async with restarting_server(server_process, database_url) as server:
        stationmaster = Program(tmp_path, server.process.target, server.process.admin_key)
        prompt = "prompt=/slow 20\n/say 100"
        async with at_terminal(stationmaster, *ASK, prompt, "--watch") as terminal:
            await terminal.see("» /slow 20")
            await server.process.kill()
            await terminal.see("⚡ connection lost")
            await server.start()
            await terminal.see("↻ connected again", seconds=60)
            await terminal.see("word100", seconds=60)
            await terminal.see("✓ succeeded", seconds=60)
            assert await terminal.ended() == 0
        assert terminal.screen.count("word100") == 1
