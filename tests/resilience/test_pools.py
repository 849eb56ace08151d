"""The pools: limits hold, whoever dies dies alone, nobody is left behind."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.errors import (
    DeadlineExceeded,
    InvalidArgument,
    ProcessDied,
    Reason,
    RemoteError,
    ResourceExhausted,
    Unavailable,
)
from stationmaster_server.resilience.pools import Pools

from tests.resilience import pool_functions as do
from tests.resilience.test_leash import gone, pid_in
from tests.waiting import until

LONG = timedelta(minutes=2)
SHORT = timedelta(milliseconds=200)
NOTHING = timedelta(0)
MEMORY = 256 * 1024**2

MakePools = Callable[..., Pools]


@pytest_asyncio.fixture
async def make_pools() -> AsyncIterator[MakePools]:
    """Make pools, which are closed with the test."""
    async with AsyncExitStack() as stack:

        def make(**settings: Any) -> Pools:
            pools = Pools(PoolSettings(**{"processes": 2, "memory": MEMORY, **settings}))
            stack.push_async_callback(pools.close, NOTHING)
            return pools

        yield make


async def running(pools: Pools, count: int, pool: str = "cpu") -> None:
    """Until so many calls have begun, or wait for that."""

    async def as_many() -> bool:
        load = pools.load()[pool]
        return load.running + load.waiting == count

    await until(as_many, seconds=30)


async def free(pools: Pools, pool: str = "cpu") -> None:
    """Until all slots are free, so that what was ended is gone."""

    async def none() -> bool:
        return pools.load()[pool].running == 0

    await until(none, seconds=30)


# What a call gets.


async def test_a_result_comes_back(make_pools: MakePools) -> None:
    pools = make_pools()
    assert await pools.cpu(do.add, 2, 3, timeout=LONG) == 5
    value = {"text": "é" * 1_000_000, "numbers": list(range(1000))}
    assert await pools.cpu(do.echo, value, timeout=LONG) == value


async def test_nothing_is_started_before_the_first_call(make_pools: MakePools) -> None:
    pools = make_pools()
    assert pools.load()["cpu"].processes == 0
    await pools.cpu(do.add, 2, 3, timeout=LONG)
    assert pools.load()["cpu"].processes == 1


async def test_a_process_serves_one_call_after_another(make_pools: MakePools) -> None:
    pools = make_pools()
    pids = {await pools.cpu(do.process_id, timeout=LONG) for _ in range(10)}
    assert len(pids) == 1
    assert os.getpid() not in pids


async def test_a_thousand_small_calls_are_all_answered_by_few_processes(make_pools: MakePools) -> None:
    pools = make_pools()
    answers = await asyncio.gather(*(pools.cpu(do.add, n, n, timeout=LONG) for n in range(1000)))
    assert answers == [2 * n for n in range(1000)]
    load = pools.load()["cpu"]
    assert (load.running, load.waiting, load.ended["done"]) == (0, 0, 1000)
    assert load.processes <= 2


async def test_what_a_function_prints_or_reads_is_no_answer(make_pools: MakePools) -> None:
    assert await make_pools().cpu(do.print_and_read, timeout=LONG) == ""


async def test_a_process_is_not_given_secrets_of_the_environment(
    make_pools: MakePools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("STATIONMASTER_DATABASE__URL", "postgresql://user:secret@host/name")
    seen = await make_pools().cpu(do.environment, timeout=LONG)
    assert "secret" not in str(seen)
    assert seen["PATH"] == os.environ["PATH"]


# Errors.


async def test_an_error_of_the_product_is_raised_as_it_was(make_pools: MakePools) -> None:
    with pytest.raises(InvalidArgument, match="name is bad") as caught:
        await make_pools().cpu(do.refuse, "name", timeout=LONG)
    assert caught.value.reason is Reason.INVALID_FIELD
    assert caught.value.violations[0].field == "name"
    assert "in refuse" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (do.raise_awkward, "Awkward: awkward 7"),
        (do.raise_with_a_lock, "ValueError: ('it holds', <unlocked _thread.lock"),
        (do.raise_without_text, "Mute: its text cannot be had"),
        (do.ask_system_to_exit, "SystemExit: 3"),
        (do.return_a_lock, "what it returned cannot be sent: TypeError: cannot pickle"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_what_cannot_be_sent_is_told_in_words_and_the_process_goes_on(
    make_pools: MakePools, function: Callable[[], Any], text: str
) -> None:
    pools = make_pools(processes=1)
    before = await pools.cpu(do.process_id, timeout=LONG)
    with pytest.raises(RemoteError, match=re.escape(text)):
        await pools.cpu(function, timeout=LONG)
    assert await pools.cpu(do.process_id, timeout=LONG) == before


async def test_a_result_that_is_too_large_is_told(make_pools: MakePools) -> None:
    with pytest.raises(RemoteError, match="what it returned has 67108"):
        await make_pools(memory=1024**3).cpu(do.return_much, 64 * 1024**2, timeout=LONG)


async def test_a_timeout_that_the_function_raises_is_not_taken_for_the_limit(make_pools: MakePools) -> None:
    pools = make_pools()
    with pytest.raises(TimeoutError, match="my own"):
        await pools.cpu(do.raise_timeout, timeout=LONG)
    assert pools.load()["cpu"].ended["timed_out"] == 0


async def test_a_function_that_cannot_be_sent_is_refused_before_it_waits(make_pools: MakePools) -> None:
    with pytest.raises(TypeError, match=r"lambda.*cannot be called in a process.*must be a function of a module"):
        await make_pools().cpu(lambda: 1, timeout=LONG)
    with pytest.raises(ValueError, match=r"echo was given 67108\d+ bytes of arguments"):
        await make_pools().cpu(do.echo, b"x" * 64 * 1024**2, timeout=LONG)


# Limits.


@pytest.mark.parametrize("function", [do.busy_in_c, do.sleep_for_ever], ids=lambda function: function.__name__)
async def test_at_the_time_limit_the_process_is_ended_and_replaced(
    make_pools: MakePools, tmp_path: Path, function: Callable[[Path], None]
) -> None:
    pools = make_pools(processes=1)
    with pytest.raises(DeadlineExceeded) as caught:
        await pools.cpu(function, tmp_path / "pid", timeout=timedelta(seconds=2))
    assert caught.value.message == f"{function.__name__} took longer than 2 s and was ended: give it less at once"
    await gone(await pid_in(tmp_path / "pid"))
    assert await pools.cpu(do.add, 1, 2, timeout=LONG) == 3
    assert pools.load()["cpu"].ended["timed_out"] == 1


async def test_what_a_function_started_ends_with_it_however_stubborn(make_pools: MakePools, tmp_path: Path) -> None:
    pools = make_pools()
    call = asyncio.create_task(pools.cpu(do.stubborn_with_a_child, tmp_path / "pid", timeout=LONG))
    pid, child = await pid_in(tmp_path / "pid"), await pid_in(tmp_path / "child")
    call.cancel()
    await gone(pid)
    await gone(child)


async def test_importing_what_is_called_is_no_part_of_its_time(make_pools: MakePools) -> None:
    """A process takes longer to start than this."""
    assert await make_pools().cpu(do.add, 1, 2, timeout=timedelta(milliseconds=40)) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
async def test_a_call_that_needs_too_much_memory_fails_alone(make_pools: MakePools) -> None:
    pools = make_pools(processes=1)
    for call in (pools.cpu(do.hog, 2 * MEMORY, timeout=LONG), pools.cpu(do.hog_step_by_step, timeout=LONG)):
        with pytest.raises(ResourceExhausted, match=r"needed more memory than a process may have, 256 MiB") as caught:
            await call
        assert caught.value.reason is Reason.LIMIT_REACHED
    assert await pools.cpu(do.hog, MEMORY // 4, timeout=LONG) == MEMORY // 4


async def test_a_process_that_has_grown_large_is_not_used_again(make_pools: MakePools) -> None:
    pools = make_pools(processes=1)
    before = await pools.cpu(do.process_id, timeout=LONG)
    await pools.cpu(do.hog, MEMORY * 3 // 5, timeout=LONG)
    assert await pools.cpu(do.process_id, timeout=LONG) != before


@pytest.mark.skipif(sys.platform != "linux", reason="no prctl")
async def test_nobody_looks_into_a_process_and_no_core_file_is_written_of_it(make_pools: MakePools) -> None:
    pools = make_pools()
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    dumpable, limits = await pools.cpu(do.dumpable, timeout=LONG)
    assert dumpable == 0
    assert limits == ((0, 0) if most == 0 else (1, 1))


@pytest.mark.parametrize(
    ("function", "arguments", "how"),
    [
        (do.exit_at_once, (7,), "its process ended with exit code 7"),
        (do.exit_at_once, (0,), "its process ended with exit code 0"),
        (do.segfault, (), r"its process was ended by signal 11 \(SIGSEGV\)"),
        (do.kill_itself, (), r"its process was ended by signal 9 \(SIGKILL\)"),
    ],
)
async def test_a_process_that_dies_costs_its_own_call_only(
    make_pools: MakePools, tmp_path: Path, function: Callable[..., Any], arguments: tuple[Any, ...], how: str
) -> None:
    pools = make_pools()
    other = asyncio.create_task(pools.cpu(do.wait_for_file, tmp_path / "go on", timeout=LONG))
    with pytest.raises(ProcessDied, match=f"{function.__name__} has no result: {how}.*pools.memory is 256 MiB"):
        await pools.cpu(function, *arguments, timeout=LONG)
    assert await pools.cpu(do.add, 1, 2, timeout=LONG) == 3
    (tmp_path / "go on").write_text("well")
    assert await other == "well"
    assert pools.load()["cpu"].ended["died"] == 1


async def test_a_process_that_died_while_nobody_needed_it_costs_no_call(make_pools: MakePools) -> None:
    pools = make_pools(processes=1)
    for _ in range(3):
        os.kill(await pools.cpu(do.process_id, timeout=LONG), signal.SIGKILL)
        assert await pools.cpu(do.add, 1, 2, timeout=LONG) == 3
    assert pools.load()["cpu"].ended["died"] == 0


async def test_a_process_that_nobody_needs_ends(make_pools: MakePools) -> None:
    pools = make_pools(idle_timeout=SHORT)
    pid = await pools.cpu(do.process_id, timeout=LONG)
    await gone(pid)

    async def none_is_left() -> bool:
        return pools.load()["cpu"].processes == 0

    await until(none_is_left)
    assert await pools.cpu(do.add, 1, 2, timeout=LONG) == 3


# Waiting.


async def test_past_the_queue_calls_are_refused(make_pools: MakePools, tmp_path: Path) -> None:
    pools = make_pools(processes=1, max_waiting=1)
    calls = []
    for count in (1, 2):
        calls.append(asyncio.create_task(pools.cpu(do.wait_for_file, tmp_path / "go on", timeout=LONG)))
        await running(pools, count)
    with pytest.raises(ResourceExhausted, match="add was refused: 1 calls wait for a process already; try again later"):
        await pools.cpu(do.add, 1, 2, timeout=LONG)
    assert pools.load()["cpu"].waiting == 1
    (tmp_path / "go on").write_text("well")
    assert await asyncio.gather(*calls) == ["well", "well"]
    assert pools.load()["cpu"].ended["refused"] == 1


async def test_a_call_does_not_wait_for_ever(make_pools: MakePools, tmp_path: Path) -> None:
    pools = make_pools(processes=1, max_wait=SHORT)
    call = asyncio.create_task(pools.cpu(do.wait_for_file, tmp_path / "go on", timeout=LONG))
    await running(pools, 1)
    with pytest.raises(ResourceExhausted, match=r"add waited 0.2 s for a process: all are busy") as caught:
        await pools.cpu(do.add, 1, 2, timeout=LONG)
    assert caught.value.reason is Reason.SERVER_OVERLOADED
    assert pools.load()["cpu"].waiting == 0
    (tmp_path / "go on").write_text("well")
    assert await call == "well"


async def test_a_cancelled_call_leaves_the_queue(make_pools: MakePools, tmp_path: Path) -> None:
    pools = make_pools(processes=1)
    first = asyncio.create_task(pools.cpu(do.wait_for_file, tmp_path / "go on", timeout=LONG))
    await running(pools, 1)
    second = asyncio.create_task(pools.cpu(do.write_process_id, tmp_path / "second", timeout=LONG))
    await running(pools, 2)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert pools.load()["cpu"].waiting == 0
    (tmp_path / "go on").write_text("well")
    await first
    assert await pools.cpu(do.add, 1, 2, timeout=LONG) == 3
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("function", [do.busy_in_c, do.sleep_for_ever], ids=lambda function: function.__name__)
async def test_cancelling_the_caller_ends_the_work(
    make_pools: MakePools, tmp_path: Path, function: Callable[[Path], None]
) -> None:
    pools = make_pools(processes=1)
    call = asyncio.create_task(pools.cpu(function, tmp_path / "pid", timeout=LONG))
    pid = await pid_in(tmp_path / "pid")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await gone(pid)
    assert await pools.cpu(do.add, 1, 2, timeout=LONG) == 3
    assert pools.load()["cpu"].ended["cancelled"] == 1


async def test_a_caller_that_goes_while_a_process_starts_leaves_nothing(make_pools: MakePools) -> None:
    pools = make_pools(processes=1)
    before = set(psutil.Process().children(recursive=True))
    for steps in range(8):
        call = asyncio.create_task(pools.cpu(do.add, 1, 2, timeout=LONG))
        for _ in range(steps):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    await free(pools)
    await pools.close(NOTHING)

    async def only_those_before() -> bool:
        return not {one for one in psutil.Process().children(recursive=True) if one not in before}

    await until(only_those_before, seconds=30)


# The end.


async def test_closing_lets_calls_finish_that_run_or_wait_and_takes_no_more(
    make_pools: MakePools, tmp_path: Path
) -> None:
    pools = make_pools(processes=1, max_waiting=1)
    calls = []
    for count in (1, 2):
        calls.append(asyncio.create_task(pools.cpu(do.wait_for_file, tmp_path / "go on", timeout=LONG)))
        await running(pools, count)
    closing = asyncio.create_task(pools.close(LONG))

    async def refusal() -> Unavailable | None:
        with pytest.raises((Unavailable, ResourceExhausted)) as caught:
            await pools.cpu(do.add, 1, 2, timeout=LONG)
        return caught.value if isinstance(caught.value, Unavailable) else None

    refused = await until(refusal)
    assert refused is not None
    assert refused.reason is Reason.SERVER_STOPPING
    assert refused.message == "add was not finished: the server is stopping; try again"
    (tmp_path / "go on").write_text("well")
    assert await asyncio.gather(*calls) == ["well", "well"]
    await closing
    assert pools.load()["cpu"].processes == 0


async def test_closing_ends_what_the_grace_did_not_suffice_for(make_pools: MakePools, tmp_path: Path) -> None:
    pools = make_pools(processes=1)
    first = asyncio.create_task(pools.cpu(do.busy_in_c, tmp_path / "pid", timeout=LONG))
    pid = await pid_in(tmp_path / "pid")
    second = asyncio.create_task(pools.cpu(do.add, 1, 2, timeout=LONG))
    await running(pools, 2)
    await pools.close(SHORT)
    for call in (first, second):
        with pytest.raises(Unavailable, match="was not finished: the server is stopping"):
            await call
    await gone(pid)
    assert pools.load()["cpu"].processes == 0


SERVER = """
import asyncio, sys, uvloop
from datetime import timedelta
from pathlib import Path
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.resilience.pools import Pools
from tests.resilience import pool_functions as do

async def main():
    pools, here = Pools(PoolSettings(processes=3)), Path(sys.argv[1])
    await asyncio.gather(*(pools.cpu(do.process_id, timeout=timedelta(minutes=2)) for _ in range(3)))
    for name, function in (("c", do.busy_in_c), ("s", do.stubborn_with_a_child)):
        (here / name).mkdir()
        asyncio.create_task(pools.cpu(function, here / name / "pid", timeout=timedelta(minutes=2)))
    await asyncio.sleep(10_000)

uvloop.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=lambda number: number.name)
async def test_no_process_is_left_behind_however_the_server_ends(tmp_path: Path, how: signal.Signals) -> None:
    """One is busy in C, one is stubborn and has a child, one is idle."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, str(tmp_path), env=environment)
    for path in ("c/pid", "s/pid", "s/child"):
        await pid_in(tmp_path / path)
    family = psutil.Process(server.pid).children(recursive=True)
    assert len(family) == 7  # three, their leashes, and the child of one
    server.send_signal(how)
    await server.wait()
    for one in family:
        await gone(one.pid)
