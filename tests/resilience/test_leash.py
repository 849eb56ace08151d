"""The leash: no process of a family outlives its server, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from stationmaster_server.resilience.leash import how, leashed

from tests.fixtures.peers import as_peer, environment_of
from tests.waiting import until

PYTHON = (sys.executable, "-c")

# Writes its process id to the file that it is told, and sleeps for ever.
SLEEP = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(10_000)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
# Leaves its session and its parent, as daemons do, and goes on after its parent ended.
DAEMON = f"""
import os, sys, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    import time
    while sys.argv[2] == 'stay' or not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
        time.sleep(0.01)
    sys.exit(7)
os.setsid()
if os.fork():
    os._exit(0)
{SLEEP}
"""
# Runs what follows on a leash, as the server does, and waits.
PARENT = """
import subprocess, sys, time
from stationmaster_server.resilience.leash import leashed
subprocess.Popen(leashed(sys.argv[1:]))
time.sleep(10_000)
"""


async def pid_in(path: Path) -> int:
    """The process id that a program wrote."""

    def read() -> int:
        return int(path.read_text() or 0) if path.exists() else 0

    async def written() -> int:
        return read()

    return await until(written, seconds=30)


async def gone(pid: int) -> None:
    """Until no such process is left."""

    async def is_gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    await until(is_gone, seconds=30)


async def test_input_output_errors_and_exit_code_pass_through() -> None:
    script = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('oh'); sys.exit(3)"
    process = await asyncio.create_subprocess_exec(*leashed([*PYTHON, script]), stdin=-1, stdout=-1, stderr=-1)
    output, errors = await process.communicate(b"hello")
    assert (output, errors, process.returncode) == (b"HELLO", b"oh", 3)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
async def test_a_signal_that_ended_the_command_is_handed_on_and_does_not_end_the_leash(number: signal.Signals) -> None:
    script = f"import os; os.kill(os.getpid(), {int(number)})"
    process = await asyncio.create_subprocess_exec(*leashed([*PYTHON, script]))
    code = await process.wait()
    assert code == 128 + number
    assert how(code) == how(-number) == f"was ended by signal {int(number)} ({number.name})"
    assert how(3) == "ended with exit code 3"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_no_other_process_of_the_user_reads_what_the_leash_was_given(tmp_path: Path) -> None:
    program, *arguments = leashed([*PYTHON, SLEEP, str(tmp_path / "pid")])
    process = await asyncio.create_subprocess_exec(program, *as_peer(*arguments), env={"WORD": "sesame"})
    pid = await pid_in(tmp_path / "pid")
    assert b"WORD=sesame" in (environment_of(pid) or b"")
    assert environment_of(process.pid) is None
    process.terminate()
    await process.wait()


async def test_a_command_that_is_not_there_is_told() -> None:
    process = await asyncio.create_subprocess_exec(*leashed(["/no/such/command"]), stderr=-1)
    _, errors = await process.communicate()
    assert process.returncode == 127
    assert errors == b"/no/such/command cannot be run: No such file or directory\n"


async def test_the_environment_is_the_one_that_was_given() -> None:
    process = await asyncio.create_subprocess_exec(
        *leashed([*PYTHON, "import os; print(os.environ['PYTHONPATH'])"]),
        stdout=-1,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": "/tells/nobody"},
    )
    output, _ = await process.communicate()
    assert output == b"/tells/nobody\n"


async def test_the_output_closes_with_the_command_and_not_with_the_leash(tmp_path: Path) -> None:
    script = f"import os; os.close(1); {SLEEP}"
    process = await asyncio.create_subprocess_exec(*leashed([*PYTHON, script, str(tmp_path / "pid")]), stdout=-1)
    assert process.stdout is not None
    assert await process.stdout.read() == b""
    process.terminate()
    await process.wait()


@pytest.mark.parametrize("script", [SLEEP, STUBBORN], ids=["docile", "stubborn"])
async def test_ending_the_leash_ends_the_command(tmp_path: Path, script: str) -> None:
    process = await asyncio.create_subprocess_exec(*leashed([*PYTHON, script, str(tmp_path / "pid")]))
    pid = await pid_in(tmp_path / "pid")
    process.terminate()
    await process.wait()
    await gone(pid)


async def test_a_command_may_answer_a_request_to_stop_in_its_own_way(tmp_path: Path) -> None:
    script = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); {SLEEP}"
    process = await asyncio.create_subprocess_exec(*leashed([*PYTHON, script, str(tmp_path / "pid")]))
    await pid_in(tmp_path / "pid")
    process.terminate()
    assert await process.wait() == 5


async def test_a_daemon_that_the_command_left_behind_ends_with_it(tmp_path: Path) -> None:
    command = [*PYTHON, DAEMON, str(tmp_path / "pid"), "leave"]
    process = await asyncio.create_subprocess_exec(*leashed(command))
    pid = await pid_in(tmp_path / "pid")
    assert await process.wait() == 7
    await gone(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
async def test_the_whole_family_ends_with_the_server_however_it_ends(tmp_path: Path, how: signal.Signals) -> None:
    command = [*PYTHON, DAEMON, str(tmp_path / "pid"), "stay"]
    server = await asyncio.create_subprocess_exec(*PYTHON, PARENT, *command)
    daemon = await pid_in(tmp_path / "pid")
    family = [process.pid for process in psutil.Process(server.pid).children(recursive=True)]
    assert daemon in family
    server.send_signal(how)
    await server.wait()
    for pid in family:
        await gone(pid)
